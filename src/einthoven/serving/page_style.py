"""The page's style sheet; the description of the API uses it too."""

PAGE_STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #56616b; --line: #dfe3e7; --tint: #f5f7f8;
  --link: #0b5c94; --grave: #b3261e; --care: #b45309; --yes: #0b5c94; --no: #9aa7b1; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { position: sticky; top: 0; z-index: 5; display: flex; flex-wrap: wrap; gap: 0 1.5rem;
  align-items: baseline; justify-content: space-between; background: #fff;
  border-bottom: 1px solid var(--line); padding: .45rem 1.25rem; }
header > div { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; min-width: 0; }
header p { margin: 0; font-size: .875rem; }
h1 { font-size: 1.15rem; margin: 0; }
h2 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; }
h2:focus { outline: none; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
.answer h3:first-child { margin-top: 0; }
main { max-width: 100rem; margin: 0 auto; padding: 1rem 1.25rem; }
footer { border-top: 1px solid var(--line); padding: .5rem 1.25rem 2rem; color: var(--soft);
  font-size: .875rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
a { color: var(--link); }
.soft { color: var(--soft); }
.small { font-size: .8125rem; }
.device { font-weight: 600; color: var(--grave); }
.wrong { color: var(--grave); font-weight: 600; }
.wrong:empty, #status:empty { margin: 0; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem;
  margin: 0 0 1rem; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.drop { border: 2px dashed #b8c2ca; border-radius: .5rem; padding: 1.75rem 1.25rem; }
.drop.over { border-color: var(--link); background: #eef6fb; }
.drop label { margin-right: .75rem; }
.drop p { margin: .3rem 0 0; font-size: .875rem; }
body.has-result .drop { padding: .4rem .8rem; }
body.has-result .drop p { display: none; }
#hints { margin-top: .5rem; }
.fields { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: end; }
.fields p { margin: .25rem 0; }
.fields .grow { flex: 1 1 16rem; }
.fields label { display: block; font-size: .875rem; color: var(--soft); }
.fields input { width: 100%; }
button, select, input { font: inherit; color: inherit; }
button, select, input:not([type=checkbox]):not([type=file]) { border: 1px solid #b8c2ca;
  border-radius: .35rem; background: #fff; padding: .25rem .6rem; min-height: 2.25rem;
  max-width: 100%; }
input[type=file] { max-width: 100%; }
button { cursor: pointer; }
button:hover:not(:disabled) { background: var(--tint); }
button:disabled { color: var(--no); cursor: default; }
button.main, button[aria-pressed=true] { background: var(--link); border-color: var(--link);
  color: #fff; }
button.main:hover, button[aria-pressed=true]:hover { background: #084a78; }
:focus-visible { outline: 3px solid #f0a63a; outline-offset: 1px; }
.pair { display: inline-flex; align-items: center; }
.pair button { border-radius: 0; margin-left: -1px; min-width: 2.25rem; }
.pair button:first-child { border-radius: .35rem 0 0 .35rem; margin-left: 0; }
.pair button:last-child { border-radius: 0 .35rem .35rem 0; }
#page-text { padding: 0 .5rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
#result { display: grid; grid-template-columns: minmax(0, 1fr); gap: .6rem 1.75rem; }
.title h2 + p { margin-top: .1rem; }
.bar { display: flex; flex-wrap: wrap; gap: .4rem .75rem; align-items: center; margin: .5rem 0;
  font-size: .9rem; }
.bar label { color: var(--soft); }
.bar select { color: var(--ink); }
#paper { display: block; width: 100%; border: 1px solid #ecc8c2; border-radius: .25rem;
  background: #fffaf9; cursor: grab; }
#paper.calipers { cursor: crosshair; touch-action: none; }
#paper.held { cursor: grabbing; }
.reading { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: center;
  min-height: 2.5rem; font-variant-numeric: tabular-nums; }
#reading { font-weight: 600; }
.warnings { border-left: 4px solid var(--care); background: #fdf8f0; margin: .5rem 0;
  padding: .4rem 1rem .4rem 2rem; }
.remarks { list-style: none; padding: 0; font-size: .875rem; margin: 0; }
.warnings:empty { display: none; }
.decided { font-size: 1.125rem; margin: .1rem 0 .5rem; }
.decided strong { color: var(--yes); }
ul { padding-left: 1.2rem; margin: .3rem 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td.number { text-align: right; }
#bars { width: 100%; }
#bars tbody th { font-weight: 400; width: 38%; }
#bars th b { font-size: .95rem; }
#bars small, .answer small { color: var(--soft); display: block; line-height: 1.35; }
#bars td:last-child, #bars th:last-child { padding-right: 0; }
#bars tr.yes .word { color: var(--yes); font-weight: 600; }
.meter { position: relative; height: .8rem; margin: .3rem 0 .15rem; background: #e9edf0;
  border-radius: .15rem; min-width: 6rem; }
.meter i { position: absolute; left: 0; top: 0; bottom: 0; background: var(--no);
  border-radius: .15rem; }
tr.yes .meter i { background: var(--yes); }
.meter s { position: absolute; top: -.2rem; bottom: -.2rem; width: 2px; margin-left: -1px;
  background: var(--ink); }
.scale { height: .8rem; width: 11rem; border-radius: .15rem; background: linear-gradient(to right,
  rgb(213 94 0 / .75), rgb(213 94 0 / 0), rgb(0 114 178 / 0), rgb(0 114 178 / .75)); }
.top { align-items: start; gap: 0 3rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .4rem 0; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; }
pre { background: var(--tint); padding: .6rem .8rem; overflow-x: auto; border-radius: .35rem;
  font-size: .875rem; }
code { font-size: .92em; }
.docs main { max-width: 60rem; }
.docs section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: 1rem; }
.touch { display: none; }
@media (pointer: coarse) {
  .touch { display: block; }
  .keys { display: none; }
}
@media (min-width: 75rem) {
  #result { grid-template-columns: minmax(0, 1fr) 25rem; }
  .title { grid-column: 1 / -1; }
}
@media (max-width: 40rem) {
  main { padding: .75rem; }
  header { padding: .4rem .75rem; }
  footer { padding: .5rem .75rem 2rem; }
  .wide { display: none; }
  button, select, input:not([type=checkbox]):not([type=file]) { min-height: 2.6rem; }
  .pair button { min-width: 2.75rem; }
  .drop input { margin-top: .3rem; }
}
@media print {
  header { position: static; }
  #intake, .bar, .keys, .touch, footer a, .answer button { display: none; }
}
"""
