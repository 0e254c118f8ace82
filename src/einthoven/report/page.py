"""The report's page: one Jinja template and its style sheet."""

REPORT_STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #56616b; --line: #dfe3e7; --tint: #f5f7f8;
  --link: #0b5c94; --grave: #b3261e; --care: #b45309; }
* { box-sizing: border-box; }
html { scroll-padding-top: 3rem; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1.25rem 4rem; background: #fff;
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: .25rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .75rem; padding-top: .75rem;
  border-top: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 48rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.note, figcaption, footer { color: var(--soft); font-size: .875rem; }
.verdict { font-size: 1.125rem; }
.device { font-weight: 600; margin: 0; font-size: .875rem; color: var(--grave); }
.scores { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin: 1.1rem 0 .5rem; padding: 0; }
.scores > div { background: var(--tint); border-radius: .4rem; padding: .65rem .9rem; }
.scores dt { color: var(--soft); font-size: .875rem; }
.scores dd { margin: 0; font-variant-numeric: tabular-nums; }
.scores .value { font-size: 1.55rem; font-weight: 600; line-height: 1.3; }
.glance { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.1rem;
  margin: 1rem 0; }
.glance dt { color: var(--soft); }
.glance dd { margin: 0; overflow-wrap: anywhere; }
.warnings { border-left: 4px solid var(--care); background: #fdf8f0; padding: .6rem 1rem;
  margin: 1.1rem 0; }
.warnings.grave { border-color: var(--grave); background: #fdf3f2; }
.warnings ul { margin: .25rem 0; padding-left: 1.2rem; }
.warnings li.grave { font-weight: 600; color: var(--grave); }
.warnings li.note { color: var(--soft); }
main > section:first-child h2 { margin-top: 1rem; border-top: 0; }
nav { position: sticky; top: 0; z-index: 3; background: #fff; margin: 1.25rem 0 0;
  padding: .5rem 0; font-size: .9rem; border-bottom: 1px solid var(--line); }
nav a { margin-right: .9rem; white-space: nowrap; }
/* Shadows at the sides say that there is more; at an end the paper colour slides over them. */
.table { overflow-x: auto; margin: .75rem 0 .25rem; background:
  linear-gradient(to right, #fff 50%, #fff0) 0 0 / 3rem 100% no-repeat local,
  linear-gradient(to left, #fff 50%, #fff0) 100% 0 / 3rem 100% no-repeat local,
  linear-gradient(to right, #0003, #0000) 0 0 / .9rem 100% no-repeat scroll,
  linear-gradient(to left, #0003, #0000) 100% 0 / .9rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
tfoot td { font-weight: 600; border-bottom: 0; }
td.number, th.number { text-align: right; white-space: nowrap; }
th.number { white-space: normal; }
td.score { white-space: nowrap; }
td.score small { color: var(--soft); display: block; }
td.long { min-width: 16rem; }
td { overflow-wrap: anywhere; }
td:first-child { min-width: 7rem; }
tr.flagged td { background: #fdf3e3; }
th button { all: unset; cursor: pointer; }
th button:hover { color: var(--link); text-decoration: underline; }
:focus-visible, th button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
th button::after { content: "\\a0\\2195"; color: #aab3bb; }
th[aria-sort="ascending"] button::after { content: "\\a0\\2191"; color: var(--ink); }
th[aria-sort="descending"] button::after { content: "\\a0\\2193"; color: var(--ink); }
figure { margin: 1rem 0 1.5rem; }
.picture { overflow-x: auto; }
.picture img { max-width: 100%; height: auto; display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr));
  gap: 1.5rem; align-items: start; }
.chart { margin: .5rem 0; min-width: 0; }
.chart figcaption { margin-top: .4rem; }
.chart h4 { font-size: .9rem; margin: 0; }
.readout { min-height: 1.3rem; margin: 0; color: var(--soft); font-size: .8125rem;
  font-variant-numeric: tabular-nums; }
.chart svg { display: block; width: 100%; height: auto; cursor: crosshair; }
.chart text { font: 12px system-ui, sans-serif; fill: #56616b; }
.grid { stroke: #e8ebee; }
.guide { stroke: #8a949c; stroke-dasharray: 4 3; }
.line { fill: none; stroke: var(--c); stroke-width: 1.9; stroke-linejoin: round; }
.line.faint { stroke: #c5ccd2; stroke-width: 1; stroke-dasharray: none !important; }
.line.bold { stroke-width: 3.5; }
.line.faint.bold { stroke: #56616b; stroke-width: 2.5; }
.dot { fill: var(--c); stroke: #fff; stroke-width: 1.5; pointer-events: none; }
.legend { list-style: none; margin: .4rem 0 0; padding: 0; font-size: .8125rem; display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); gap: .1rem .9rem; }
.legend li { min-width: 0; }
.legend button { all: unset; cursor: pointer; }
.legend button:focus-visible { outline: 2px solid var(--link); }
.legend svg { width: 1.6rem; height: .7rem; display: inline-block; vertical-align: middle;
  margin-right: .35rem; }
.legend span { overflow-wrap: anywhere; }
.legend .value { color: var(--soft); font-variant-numeric: tabular-nums; }
.legend .off svg path { stroke: #c5ccd2; stroke-dasharray: none !important; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--link); }
code { font-size: .9em; background: var(--tint); padding: .05rem .3rem; border-radius: .2rem; }
@media (max-width: 40rem) {
  body { padding: 1rem 1rem 3rem; }
  h1 { font-size: 1.35rem; }
  nav { position: static; }
  nav a { display: inline-block; padding: .2rem 0; }
  td:first-child, th:first-child { min-width: 6.6rem; max-width: 9rem; position: sticky; left: 0;
    background: #fff; }
  tr.flagged td:first-child { background: #fdf3e3; }
  .scores { grid-template-columns: repeat(2, 1fr); gap: .5rem; }
  .scores .value { font-size: 1.3rem; }
  .glance { grid-template-columns: 1fr; gap: 0; }
  .glance dd { margin-bottom: .5rem; }
  .picture { border: 1px solid var(--line); }
  .picture + figcaption::after { content: " Scroll sideways to see all of it."; }
}
@media print {
  @page { margin: 12mm; }
  html { font-size: 11px; }
  body { max-width: none; padding: 0; font-size: 1rem; print-color-adjust: exact; }
  .scores > div { border: 1px solid var(--line); }
  h2, h3, h4 { break-after: avoid; }
  figure, tr, .scores > div, .warnings { break-inside: avoid; }
  nav, .readout { display: none; }
  .table { overflow: visible; background: none; }
  .picture { overflow: visible; border: 0; }
  .picture img { min-width: 0 !important; max-height: 22cm; object-fit: contain;
    object-position: left; }
  #errors .picture img { max-height: 11.3cm; }
  .picture + figcaption::after { content: none; }
  .charts { grid-template-columns: repeat(2, 1fr); gap: 1rem; }
  .scores { grid-template-columns: repeat(3, 1fr); }
  .glance { grid-template-columns: max-content 1fr; }
  table { font-size: .8rem; }
  th, td { padding-right: .5rem; }
  td.long { min-width: 8rem; }
  td:first-child, th:first-child { min-width: 4rem; position: static; }
  th button::after, th[aria-sort] button::after { content: ""; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""

REPORT_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'sha256-{{ script_digest }}'; base-uri 'none'; \
form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="einthoven {{ version }}">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
{%- macro show_table(table) %}
<div class="table" tabindex="0">
<table{% if table.rows | length > 1 and not table.is_list %} class="sortable"{% endif %}>
{%- if table.header | select | list %}
<thead><tr>
{%- for name in table.header %}<th scope="col"{{ head_class(table, loop.index0) }}>{{ name }}</th>
{%- endfor %}</tr></thead>
{%- endif %}
<tbody>
{%- for row in table.rows %}
<tr{% if loop.index0 in table.flagged %} class="flagged"{% endif %}>
{%- for cell in row %}<td{{ cell_class(table, loop.index0) }}>{{ cell_text(cell) }}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody>
{%- if table.footer %}
<tfoot>
{%- for row in table.footer %}
<tr>{% for cell in row %}<td{{ cell_class(table, loop.index0) }}>{{ cell_text(cell) }}</td>
{%- endfor %}</tr>
{%- endfor %}
</tfoot>
{%- endif %}</table></div>
{%- if table.note %}<p class="note">{{ table.note | code }}</p>{% endif %}
{%- endmacro %}
{%- macro show_picture(picture) %}
<figure><div class="picture" tabindex="0">
<img src="data:image/png;base64,{{ picture.data }}" width="{{ picture.width }}"
style="min-width: {{ picture.least_width }}px" alt="{{ picture.caption }}">
</div><figcaption>{{ picture.caption | code }}</figcaption></figure>
{%- endmacro %}
{%- macro show_chart(chart) %}
<figure class="chart" data-chart="{{ chart.id }}"><h4>{{ chart.title }}</h4>
<p class="readout" aria-live="polite"></p>
{{ chart_markup(chart) }}
<ul class="legend">
{%- for line in legend_rows(chart) %}
<li data-line="{{ line.number }}"{% if not line.is_lit %} class="off"{% endif %}>
<svg viewBox="0 0 26 10" aria-hidden="true">\
<path class="line" style="{{ line.look }}" d="M1 5H25"/></svg>\
<span>{{ line.name }} <span class="value">{{ line.note }}</span></span></li>
{%- endfor %}
</ul>
{%- if chart.caption %}<figcaption>{{ chart.caption }}</figcaption>{% endif %}
</figure>
{%- endmacro %}
{%- macro show_part(part) %}
{%- if part.table %}{{ show_table(part.table) }}{% endif %}
{%- if part.charts %}<div class="charts">
{%- for chart in part.charts %}{{ show_chart(chart) }}{% endfor %}</div>{% endif %}
{%- if part.picture %}{{ show_picture(part.picture) }}{% endif %}
{%- endmacro %}
<header id="verdict">
<p class="device">{{ disclaimer }}</p>
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
{%- if cautions %}
<div class="warnings{% if cautions[0].level == 'grave' %} grave{% endif %}">
<strong>Before you trust these numbers</strong>
<ul>{% for one in cautions %}<li class="{{ one.level }}">{{ one.text | code }}</li>{% endfor %}</ul>
</div>
{%- endif %}
{%- if glance %}
<dl class="glance">
{%- for name, text in glance %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}
</dl>
{%- endif %}
</header>
<nav aria-label="Sections">
{%- for section in sections %}<a href="#{{ section.id }}">{{ section.title }}</a> {% endfor -%}
</nav>
<main>
{%- for section in sections %}
<section id="{{ section.id }}">
<h2>{{ section.title }}</h2>
{%- for part in section.parts %}
{%- if part.heading %}<h3>{{ part.heading }}</h3>{% endif %}
{%- if part.text %}<p>{{ part.text | code }}</p>{% endif %}
{%- if part.folded %}
<details><summary>{{ part.folded }}</summary>{{ show_part(part) }}</details>
{%- else %}{{ show_part(part) }}{% endif %}
{%- endfor %}
</section>
{%- endfor %}
</main>
<footer>
<p>Made by einthoven {{ version }} on {{ made }}, from the files of this workspace.
{{ disclaimer }}</p>
</footer>
<script type="application/json" id="report-data">{{ chart_json }}</script>
<script>{{ script }}</script>
</body>
</html>
"""
