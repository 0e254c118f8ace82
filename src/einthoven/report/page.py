"""The report's page: one Jinja template with its style sheet inside."""

REPORT_STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #5b6670; --line: #dfe3e7; --tint: #f5f7f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 4rem; background: #fff;
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.note, figcaption, footer { color: var(--soft); font-size: .875rem; }
.verdict { font-size: 1.125rem; }
.device { font-weight: 600; }
.scores { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 .5rem; padding: 0; }
.scores > div { background: var(--tint); border-radius: .4rem; padding: .75rem .9rem; }
.scores dt { color: var(--soft); font-size: .875rem; }
.scores dd { margin: 0; font-variant-numeric: tabular-nums; }
.scores .value { font-size: 1.6rem; font-weight: 600; line-height: 1.3; }
.warnings { border-left: 4px solid #b45309; background: #fdf8f0; padding: .6rem 1rem;
  margin: 1.25rem 0; }
.warnings ul { margin: .25rem 0; padding-left: 1.2rem; }
nav { margin: 1.5rem 0 0; font-size: .9rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: #0b5c94; }
/* Shadows at the sides say that there is more; at an end the paper colour slides over them. */
.table { overflow-x: auto; margin: .75rem 0 .25rem; background:
  linear-gradient(to right, #fff 50%, #fff0) 0 0 / 3rem 100% no-repeat local,
  linear-gradient(to left, #fff 50%, #fff0) 100% 0 / 3rem 100% no-repeat local,
  linear-gradient(to right, #0003, #0000) 0 0 / .9rem 100% no-repeat scroll,
  linear-gradient(to left, #0003, #0000) 100% 0 / .9rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); }
td.number, th.number { text-align: right; white-space: nowrap; }
td.score { white-space: nowrap; }
td.long { min-width: 16rem; }
td.score small { color: var(--soft); display: block; }
td { overflow-wrap: anywhere; }
td:first-child { min-width: 9rem; }
figure { margin: 1rem 0 1.5rem; }
.picture { overflow-x: auto; }
.picture img { max-width: 100%; height: auto; display: block; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: #0b5c94; }
code { font-size: .9em; background: var(--tint); padding: .05rem .3rem; border-radius: .2rem; }
@media (max-width: 40rem) {
  body { padding: 1.25rem 1rem 3rem; }
  h1 { font-size: 1.35rem; }
  td:first-child { min-width: 6rem; }
  .scores { grid-template-columns: repeat(2, 1fr); }
  .scores .value { font-size: 1.35rem; }
  .picture { border: 1px solid var(--line); }
  figcaption::after { content: " Scroll sideways to see all of it."; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 11px; }
  h2, h3 { break-after: avoid; }
  figure, tr, .scores > div, .warnings { break-inside: avoid; }
  nav { display: none; }
  .table { overflow: visible; background: none; }
  .picture { overflow: visible; border: 0; }
  .picture img { min-width: 0 !important; max-height: 22cm; object-fit: contain;
    object-position: left; }
  figcaption::after { content: none; }
  table { font-size: 9px; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""

REPORT_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="einthoven {{ version }}">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
{%- macro show_table(table) %}
<div class="table" tabindex="0"><table>
{%- if table.header | select | list %}
<thead><tr>
{%- for name in table.header %}<th{{ cell_class(table, loop.index0) }}>{{ name }}</th>{% endfor -%}
</tr></thead>
{%- endif %}
<tbody>
{%- for row in table.rows %}
<tr>
{%- for cell in row %}<td{{ cell_class(table, loop.index0) }}>{{ cell_text(cell) }}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody></table></div>
{%- if table.note %}<p class="note">{{ table.note | code }}</p>{% endif %}
{%- endmacro %}
{%- macro show_picture(picture) %}
<figure><div class="picture" tabindex="0">
<img src="data:image/png;base64,{{ picture.data }}" width="{{ picture.width }}"
style="min-width: {{ picture.least_width }}px" alt="{{ picture.caption }}">
</div><figcaption>{{ picture.caption | code }}</figcaption></figure>
{%- endmacro %}
<header id="verdict">
<h1>{{ title }}</h1>
<p class="verdict">{{ verdict | code }}</p>
{%- if headline %}
<dl class="scores">
{%- for name, value, interval in headline %}
<div><dt>{{ name }}</dt><dd><div class="value">{{ value }}</div>{{ interval }}</dd></div>
{%- endfor %}
</dl>
{%- endif %}
<p class="note">{{ headline_note | code }}</p>
{%- if warnings %}
<div class="warnings"><strong>Before you trust these numbers</strong>
<ul>{% for warning in warnings %}<li>{{ warning | code }}</li>{% endfor %}</ul></div>
{%- endif %}
<p class="device">Research software, not a medical device.</p>
<nav>
{%- for section in sections %}<a href="#{{ section.id }}">{{ section.title }}</a> {% endfor -%}
</nav>
</header>
{%- for section in sections %}
<section id="{{ section.id }}">
<h2>{{ section.title }}</h2>
{%- for part in section.parts %}
{%- if part.heading %}<h3>{{ part.heading }}</h3>{% endif %}
{%- if part.text %}<p>{{ part.text | code }}</p>{% endif %}
{%- if part.table and part.folded %}
<details><summary>{{ part.folded }}</summary>{{ show_table(part.table) }}</details>
{%- elif part.table %}{{ show_table(part.table) }}{% endif %}
{%- if part.picture %}{{ show_picture(part.picture) }}{% endif %}
{%- endfor %}
</section>
{%- endfor %}
<footer>
<p>Made by einthoven {{ version }} on {{ made }}, from the files of this workspace.</p>
</footer>
</body>
</html>
"""
