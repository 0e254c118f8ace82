"""The page: its HTML and icon. Style and scripts have files of their own."""

PAGE_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" '
    'rx="6" fill="#fdf1ef"/><path d="M2 18h6l2-3 2 3h2l2 4 3-18 3 16 1-2h2l2-3 2 3h5" fill="none" '
    'stroke="#1d2329" stroke-width="1.8" stroke-linejoin="round"/></svg>'
)

PAGE_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Einthoven</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/page.css">
<script src="/page.js" defer></script>
</head>
<body>
<header>
<div><h1>Einthoven</h1><p id="model-line" class="soft"></p></div>
<p class="device">Research software, not a medical device.</p>
</header>
<main>

<form id="token-form" class="card" hidden>
<label for="token">This service needs its token</label>
<div class="row">
<input id="token" type="password" autocomplete="off" spellcheck="false" required>
<button class="main">Use it</button>
</div>
<p id="token-error" class="wrong" role="alert"></p>
</form>

<form id="intake" class="card">
<div id="drop" class="drop">
<label for="file"><strong>Choose an ECG file</strong> <span class="wide">or drop one here</span>
</label>
<input id="file" type="file" multiple aria-describedby="formats">
<p id="formats" class="soft"></p>
</div>
<details id="hints">
<summary>Rate, units and leads, where the file does not state them</summary>
<div class="fields">
<p><label for="fs">Sampling rate, Hz</label>
<input id="fs" inputmode="decimal" autocomplete="off" placeholder="500"></p>
<p><label for="units">Units of the samples</label>
<select id="units"><option value="">as the file says</option><option>mV</option>
<option>uV</option><option>V</option></select></p>
<p class="grow"><label for="leads">Leads, in the order of the file</label>
<input id="leads" autocomplete="off" spellcheck="false" placeholder="I, II, III, aVR, …"></p>
<p><button id="again" disabled>Read the file again</button></p>
</div>
</details>
<p id="status" role="status"></p>
<p id="error" class="wrong" role="alert"></p>
</form>

<section id="result" hidden aria-labelledby="result-title">
<div class="title">
<h2 id="result-title" tabindex="-1"></h2>
<p id="facts" class="soft"></p>
<ul id="remarks" class="remarks soft" aria-label="Remarks on the file"></ul>
<ul id="warnings" class="warnings" aria-label="Warnings"></ul>
</div>

<div class="sheet">
<div class="bar" role="group" aria-label="How the ECG is drawn">
<label>Layout <select id="layout"></select></label>
<label>Speed <select id="speed"><option value="25">25 mm/s</option>
<option value="50">50 mm/s</option></select></label>
<label>Gain <select id="gain"><option value="5">5 mm/mV</option>
<option value="10" selected>10 mm/mV</option><option value="20">20 mm/mV</option></select></label>
<span class="pair" role="group" aria-label="Zoom"><button id="zoom-out" \
aria-label="Zoom out">−</button><button id="zoom-fit" aria-label="Fit to the width">Fit</button>\
<button id="zoom-in" aria-label="Zoom in">+</button></span>
<span class="pair" role="group" aria-label="What dragging does"><button id="tool-pan" \
aria-pressed="true">Move</button><button id="tool-calipers" aria-pressed="false">Calipers</button>\
</span>
<span id="pages" class="pair" role="group" aria-label="Part of the recording" hidden>\
<button id="page-back" aria-label="Earlier">‹</button><span id="page-text"></span>\
<button id="page-on" aria-label="Later">›</button></span>
</div>
<canvas id="paper" tabindex="0" role="application" aria-label="ECG on paper" \
aria-describedby="paper-help"></canvas>
<div class="reading">
<output id="reading" for="paper"></output>
<span id="caliper-tools" hidden><label><input type="checkbox" id="march"> repeat the interval
</label>
<button id="caliper-clear">Remove</button></span>
</div>
<p class="soft small touch">Drag to move the paper; two fingers zoom.</p>
<details class="soft small keys"><summary>Keys</summary>
<p id="paper-help">With the paper in focus: arrow keys move it; + and − zoom, 0 fits it to the \
width. C takes the calipers: drag, or use the arrow keys (with Shift in larger steps); Enter \
changes the end that moves, Escape removes them.</p>
</details>
<div class="bar" role="group" aria-label="Explanation">
<label>Explain <select id="explain-label"></select></label>
<label>by <select id="explain-method"></select></label>
<button id="explain">Show on the trace</button>
<label id="overlay-switch" hidden><input type="checkbox" id="overlay" checked> overlay</label>
<span id="explain-status" role="status" class="soft"></span>
</div>
<div id="explanation" hidden>
<p class="row small soft" aria-hidden="true">against <span class="scale"></span> for</p>
<ul id="explain-text"></ul>
<details id="explain-tables"><summary>By lead and by beat</summary>
<div class="row top"><table id="explain-leads"></table><table id="explain-beats"></table></div>
</details>
</div>
</div>

<div class="answer">
<h3>What the model says</h3>
<p id="decided" class="decided"></p>
<div class="table"><table id="bars"></table></div>
<p><button id="all-labels" hidden></button></p>
<p id="bars-note" class="soft small"></p>
<div id="conformal" hidden>
<h3>What it cannot exclude</h3>
<p><label>at a coverage of <select id="coverage"></select></label></p>
<p id="conformal-text"></p>
</div>
<h3>What was done to the signal</h3>
<ul id="steps"></ul>
<p class="row"><button id="save-json">Save as JSON</button>
<button id="save-png">Save as PNG</button></p>
</div>
</section>
</main>
<footer><p>Research software, not a medical device. It knows only its own labels: what is outside \
them gets no name, and a normal answer does not rule it out. <a href="/docs">API</a></p></footer>
<noscript><p class="card">This page needs JavaScript; <a href="/docs">the API</a> does not.</p>
</noscript>
</body>
</html>
"""
