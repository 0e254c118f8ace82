"""The page's ECG paper: where leads lie on it, in millimetres, and how they are drawn."""

# Plain JavaScript. Millimetres run from the upper left corner of the paper, x right and y down.
DRAWING_SCRIPT = r"""
// Paper -----------------------------------------------------------------------------------------

const STANDARD = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"];
const INK = "#1d2329";
const PULSE = 10;
const PAD = 5;
const PAGE_SECONDS = 10;
// A lead of its own fills up to so many rows.
const MOST_ROWS = 6;

const LAYOUTS = {
  "3x4": "3 × 4 and rhythm strip",
  "12x1": "12 × 1",
  strip: "one lead, row after row",
};

const layoutsFor = (recording) => {
  if (recording.leads.length === 1) return ["strip"];
  return recording.leads.length > 3 ? ["3x4", "12x1"] : ["12x1"];
};

// Strips of a page: lead, row, left edge in mm, from and to in seconds.
const stripsOf = (recording, layout, speed, start) => {
  const strip = (lead, row, left, from, to) => ({ lead, row, left, from, to });
  if (layout === "strip") {
    const rows = Math.max(1, Math.ceil((recording.seconds - start) / PAGE_SECONDS - 1e-6));
    return Array.from({ length: Math.min(MOST_ROWS, rows) }, (_, row) => {
      const from = start + row * PAGE_SECONDS;
      return strip(recording.leads[0], row, PULSE, from, from + PAGE_SECONDS);
    });
  }
  if (layout === "12x1") {
    return recording.leads.map((lead, row) => strip(lead, row, PULSE, start, start + PAGE_SECONDS));
  }
  const part = PAGE_SECONDS / 4;
  const strips = STANDARD.map((lead, k) => {
    const column = Math.floor(k / 3);
    const from = start + column * part;
    return strip(lead, k % 3, PULSE + column * part * speed, from, from + part);
  });
  const rhythm = recording.leads.includes("II") ? "II" : recording.leads[0];
  return [...strips, strip(rhythm, 3, PULSE, start, start + PAGE_SECONDS)];
};

// Everything that a page needs to be drawn or measured on.
const layOut = (recording, view) => {
  const strips = stripsOf(recording, view.layout, view.speed, view.start);
  const rows = 1 + Math.max(...strips.map((each) => each.row));
  const pitch = (view.layout === "12x1" ? 20 : 30) * (view.gain > 10 ? 1.5 : 1);
  const width = PULSE + PAGE_SECONDS * view.speed + 3;
  const height = rows * pitch + 2 * PAD;
  // On a line of the five-millimetre grid, as a technician would set it.
  const baseline = (row) => PAD + 5 * Math.round(((row + 0.55) * pitch) / 5);
  return { strips, rows, pitch, width, height, baseline, speed: view.speed, gain: view.gain };
};

const stripAt = (page, x, y) => {
  const row = Math.min(page.rows - 1, Math.max(0, Math.floor((y - PAD) / page.pitch)));
  const there = page.strips.filter((each) => each.row === row);
  return there.findLast((each) => x >= each.left) || there[0];
};

const drawLines = (ctx, from, to, step, across, along) => {
  ctx.beginPath();
  for (let k = Math.ceil(from / step); k * step <= to; k += 1) {
    ctx.moveTo(...across(k * step));
    ctx.lineTo(...along(k * step));
  }
  ctx.stroke();
};

const drawGrid = (ctx, page, scale) => {
  ctx.fillStyle = "#fffaf9";
  ctx.fillRect(0, 0, page.width, page.height);
  for (const [step, color, width] of [[1, "#f6dcd8", 0.08], [5, "#e9b4ab", 0.16]]) {
    // Lines closer than this would only be a haze.
    if (step * scale < 2.4) continue;
    ctx.strokeStyle = color;
    ctx.lineWidth = Math.max(width, 0.6 / scale);
    drawLines(ctx, 0, page.width, step, (x) => [x, 0], (x) => [x, page.height]);
    drawLines(ctx, 0, page.height, step, (y) => [0, y], (y) => [page.width, y]);
  }
};

const drawPulse = (ctx, page, row) => {
  const y = page.baseline(row);
  const width = 0.2 * page.speed;
  const left = Math.max(0.5, (PULSE - 1 - width) / 2);
  ctx.beginPath();
  ctx.moveTo(left - 0.5, y);
  ctx.lineTo(left, y);
  ctx.lineTo(left, y - page.gain);
  ctx.lineTo(Math.min(left + width, PULSE - 1), y - page.gain);
  ctx.lineTo(Math.min(left + width, PULSE - 1), y);
  ctx.stroke();
};

const drawTrace = (ctx, page, strip, trace, fs) => {
  const y = page.baseline(strip.row);
  const first = Math.max(0, Math.ceil(strip.from * fs - 1e-6));
  const last = Math.min(trace.length - 1, Math.floor(strip.to * fs + 1e-6));
  // A spike taller than its row stops short of the neighbours' baselines.
  const limit = 0.95 * page.pitch;
  let isDown = false;
  ctx.beginPath();
  for (let i = first; i <= last; i += 1) {
    if (Number.isNaN(trace[i])) {
      isDown = false;
      continue;
    }
    const x = strip.left + (i / fs - strip.from) * page.speed;
    const up = Math.min(limit, Math.max(-limit, trace[i] * page.gain));
    if (isDown) ctx.lineTo(x, y - up);
    else ctx.moveTo(x, y - up);
    isDown = true;
  }
  ctx.stroke();
};

const drawOverlay = (ctx, page, strip, overlay) => {
  const values = overlay.values[strip.lead];
  if (!values) return;
  const top = page.baseline(strip.row) - page.pitch * 0.5;
  const width = page.speed / overlay.fs;
  const first = Math.max(0, Math.floor(strip.from * overlay.fs));
  const last = Math.min(values.length, Math.ceil(strip.to * overlay.fs));
  for (let i = first; i < last; i += 1) {
    const strength = Math.min(1, Math.abs(values[i]) / overlay.most);
    if (strength < 0.04) continue;
    const color = values[i] > 0 ? "0, 114, 178" : "213, 94, 0";
    ctx.fillStyle = `rgba(${color}, ${(0.75 * strength).toFixed(3)})`;
    const left = strip.left + (i / overlay.fs - strip.from) * page.speed;
    const from = Math.max(strip.left, left);
    ctx.fillRect(from, top, Math.max(0, left + width * 1.02 - from), page.pitch * 0.94);
  }
};

const drawName = (ctx, page, strip, recording) => {
  const y = page.baseline(strip.row);
  const isThere = strip.lead in recording.traces;
  const isComputed = recording.computed.includes(strip.lead);
  ctx.lineWidth = 0.2;
  ctx.beginPath();
  ctx.moveTo(strip.left, y - 2.5);
  ctx.lineTo(strip.left, y + 2.5);
  ctx.stroke();
  ctx.font = "bold 3.4px system-ui, sans-serif";
  const name = strip.lead + (isComputed ? " (computed)" : "");
  ctx.lineWidth = 0.9;
  ctx.strokeStyle = "#fffaf9";
  const at = [strip.left + 1.2, y - 0.5 * page.pitch + 4];
  ctx.strokeText(name, ...at);
  ctx.fillText(name, ...at);
  ctx.strokeStyle = INK;
  if (!isThere) {
    ctx.font = "italic 3.2px system-ui, sans-serif";
    ctx.fillText("not recorded", strip.left + 12, y - 1.5);
  }
};

// Draws a page into millimetres of a context that is already scaled.
const drawPage = (ctx, page, recording, overlay, scale) => {
  drawGrid(ctx, page, scale);
  if (overlay) for (const strip of page.strips) drawOverlay(ctx, page, strip, overlay);
  ctx.strokeStyle = INK;
  ctx.fillStyle = INK;
  ctx.lineJoin = "round";
  for (const strip of page.strips) {
    ctx.lineWidth = Math.min(0.36, Math.max(0.24, 1.1 / scale));
    const trace = recording.traces[strip.lead];
    ctx.save();
    ctx.beginPath();
    ctx.rect(strip.left - 0.2, 0, (strip.to - strip.from) * page.speed + 0.4, page.height);
    ctx.clip();
    if (trace) drawTrace(ctx, page, strip, trace, recording.fs);
    ctx.restore();
    drawName(ctx, page, strip, recording);
  }
  ctx.lineWidth = 0.25;
  for (let row = 0; row < page.rows; row += 1) drawPulse(ctx, page, row);
};

// A recording as the service gives it, with each lead around its median, in millivolts.
const recordingFrom = (signal) => {
  const traces = {};
  signal.leads.forEach((lead, k) => {
    const row = signal.microvolts[k];
    const sorted = row.filter((value) => value !== null).sort((a, b) => a - b);
    const middle = sorted.length ? sorted[Math.floor(sorted.length / 2)] : 0;
    traces[lead] = Float32Array.from(row, (value) =>
      value === null ? NaN : (value - middle) / 1000);
  });
  const { fs, leads, computed, seconds } = signal;
  return { fs, leads, computed, seconds, traces };
};
"""
