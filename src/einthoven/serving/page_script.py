"""The page's course of events: a file goes in, an answer comes out, and is kept as a file."""

PAGE_SCRIPT = r"""
// State -----------------------------------------------------------------------------------------

const MOST_TRIES = 4;
const METHOD_TITLES = {
  integrated_gradients: "integrated gradients", grad_cam: "Grad-CAM", occlusion: "occlusion",
};
const DISCLAIMER = "Research software, not a medical device.";

const state = {
  token: "", metadata: null, files: [], answer: null, explanation: null, asked: null,
};
const paper = new PaperView(element("paper"));

class Refused extends Error {
  constructor(status, told) {
    super(told.error || `The service answered with status ${status}.`);
    this.status = status;
    this.needs = told.needs || [];
  }
}

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

// Asks the service; when it has too much to do, again after a moment.
const ask = async (path, options = {}) => {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
  for (let tries = 1; ; tries += 1) {
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, { error: "The service cannot be reached; is it still running?" });
    }
    const told = await response.json().catch(() => ({}));
    if (response.ok) return told;
    if (response.status !== 503 || tries >= MOST_TRIES) throw new Refused(response.status, told);
    await pause(1000 * (Number(response.headers.get("Retry-After")) || 1));
  }
};

// Token -----------------------------------------------------------------------------------------

const askForToken = (why) => {
  element("token-form").hidden = false;
  element("intake").hidden = true;
  element("result").hidden = true;
  element("token-error").textContent = why;
  element("token").focus();
};

const begin = async () => {
  try {
    state.metadata = await ask("/metadata");
  } catch (error) {
    if (error.status === 401) askForToken(state.token ? "This is not the token." : "");
    else element("error").textContent = error.message;
    return;
  }
  element("token-form").hidden = true;
  element("intake").hidden = false;
  showModel(state.metadata);
  const option = (value) => make("option", METHOD_TITLES[value] || value, { value });
  element("explain-method").replaceChildren(...state.metadata.methods.map(option));
};

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = element("token").value;
  begin();
});

// Files -----------------------------------------------------------------------------------------

const formOf = (extra) => {
  const form = new FormData();
  for (const file of state.files) form.append("file", file);
  for (const name of ["fs", "units", "leads"]) {
    const value = element(name).value.trim();
    if (value) form.append(name, value);
  }
  for (const [name, value] of Object.entries(extra)) form.append(name, value);
  return form;
};

const nameOfFiles = () => {
  const header = state.files.find((file) => file.name.toLowerCase().endsWith(".hea"));
  return (header || state.files[0]).name;
};

const checkSize = () => {
  const size = state.files.reduce((sum, file) => sum + file.size, 0);
  const most = state.metadata.max_bytes;
  if (size > most * 0.99) {
    const [has, takes] = [size, most].map((bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`);
    throw new Refused(413, { error: `The file has ${has}; at most ${takes} are taken.` });
  }
};

const tellError = (error) => {
  element("error").textContent = capital(error.message);
  if (error.status === 401) askForToken("This is not the token.");
  if (!error.needs || !error.needs.length) return;
  element("hints").open = true;
  element(error.needs[0]).focus();
};

const send = async () => {
  if (!state.files.length || !state.metadata) return;
  if (state.asked) state.asked.abort();
  const asked = new AbortController();
  state.asked = asked;
  // An old trace must not stand beside a new file's name, or its error.
  element("result").hidden = true;
  element("error").textContent = "";
  element("status").textContent = `Reading ${nameOfFiles()} …`;
  element("again").disabled = false;
  try {
    checkSize();
    const body = formOf({ with_signal: "true" });
    const answer = await ask("/predict", { method: "POST", body, signal: asked.signal });
    showAnswer(answer);
    element("status").textContent = "";
  } catch (error) {
    if (error.name === "AbortError") return;
    element("status").textContent = "";
    if (error instanceof Refused) tellError(error);
    else throw error;
  }
};

const take = (files) => {
  if (!files.length) return;
  state.files = [...files];
  send();
};

// Without this, choosing the same file again would be no change.
element("file").addEventListener("click", (event) => { event.target.value = ""; });
element("file").addEventListener("change", (event) => take(event.target.files));
element("intake").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

// A file may be dropped anywhere; without this the browser would open it.
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.remove("over");
  });
}
document.addEventListener("drop", (event) => {
  if (!element("intake").hidden) take(event.dataTransfer.files);
});

// Answer ----------------------------------------------------------------------------------------

const showAnswer = (answer) => {
  state.answer = answer;
  state.explanation = null;
  document.body.classList.add("has-result");
  element("result").hidden = false;
  showFacts(answer, state.metadata, nameOfFiles());
  showDecisions(answer, state.metadata);
  showBars(answer, state.metadata, false);
  element("bars-note").textContent = barsNote(answer, state.metadata);
  showConformal(answer);
  const option = (label) => make("option", label, { value: label });
  element("explain-label").replaceChildren(...ranked(answer).map(option));
  hideExplanation();
  const recording = recordingFrom(answer.signal);
  const layouts = layoutsFor(recording);
  element("layout").replaceChildren(...layouts.map((layout) =>
    make("option", LAYOUTS[layout], { value: layout })));
  paper.show(recording);
  element("layout").value = paper.settings.layout;
  showPages();
  element("result-title").focus({ preventScroll: true });
};

const showPages = () => {
  const { seconds } = paper.recording;
  const step = paper.settings.layout === "strip" ? MOST_ROWS * PAGE_SECONDS : PAGE_SECONDS;
  const { start } = paper.settings;
  element("pages").hidden = seconds <= step + 0.5;
  const end = Math.min(start + step, seconds);
  const isPart = state.answer.seconds > seconds + 0.01;
  const whole = isPart ? `the first ${duration(seconds)}` : duration(seconds);
  element("page-text").textContent = `${start}–${Number(end.toFixed(1))} s of ${whole}`;
  element("page-back").disabled = start <= 0;
  element("page-on").disabled = start + step >= seconds - 0.01;
  element("page-back").onclick = () => turn(start - step);
  element("page-on").onclick = () => turn(start + step);
};

const turn = (start) => {
  paper.change({ start: Math.max(0, start) });
  showPages();
};

for (const name of ["layout", "speed", "gain"]) {
  element(name).addEventListener("change", (event) => {
    const { value } = event.target;
    paper.change({ [name]: name === "layout" ? value : Number(value), start: 0 });
    showPages();
  });
}
element("zoom-in").addEventListener("click", () => paper.zoom(1.25));
element("zoom-out").addEventListener("click", () => paper.zoom(0.8));
element("zoom-fit").addEventListener("click", () => paper.fit());

for (const tool of ["pan", "calipers"]) {
  element(`tool-${tool}`).addEventListener("click", () => {
    for (const each of ["pan", "calipers"]) {
      element(`tool-${each}`).setAttribute("aria-pressed", String(each === tool));
    }
    paper.take(tool);
  });
}
element("march").addEventListener("change", (event) => {
  paper.march = event.target.checked;
  paper.draw();
});
element("caliper-clear").addEventListener("click", () => paper.setCalipers(null));

paper.onChange = () => {
  const read = paper.measured();
  element("caliper-tools").hidden = !read;
  const hint = paper.tool === "calipers" ? "Drag from one point of the trace to another." : "";
  element("reading").textContent = !read ? hint
    : `${read.ms.toFixed(0)} ms · ${read.mv.toFixed(2).replace("-", "−")} mV`
      + (read.rate ? ` · ${read.rate.toFixed(0)} per minute` : "") + ` · from lead ${read.lead}`;
};

element("all-labels").addEventListener("click", () => showBars(state.answer, state.metadata, true));
element("coverage").addEventListener("change", () => showConformal(state.answer));

// Explanation -----------------------------------------------------------------------------------

const hideExplanation = () => {
  state.explanation = null;
  paper.overlay = null;
  element("explanation").hidden = true;
  element("overlay-switch").hidden = true;
  element("explain-status").textContent = "";
};

const showExplanation = (explanation) => {
  state.explanation = explanation;
  element("explanation").hidden = false;
  element("overlay-switch").hidden = false;
  element("overlay").checked = true;
  paper.overlay = overlayFrom(explanation);
  paper.draw();
  tellExplanation(explanation);
};

element("explain").addEventListener("click", async () => {
  const { answer } = state;
  const [label, method] = [element("explain-label").value, element("explain-method").value];
  const button = element("explain");
  hideExplanation();
  paper.draw();
  button.disabled = true;
  element("explain-status").textContent = "Computing …";
  try {
    const told = await ask("/explain", { method: "POST", body: formOf({ label, method }) });
    // Another file may have come meanwhile.
    if (state.answer === answer) {
      element("explain-status").textContent = "";
      showExplanation(told);
    }
  } catch (error) {
    element("explain-status").textContent = capital(error.message);
  } finally {
    button.disabled = false;
  }
});

element("overlay").addEventListener("change", (event) => {
  paper.overlay = event.target.checked ? overlayFrom(state.explanation) : null;
  paper.draw();
});

// Keeping ---------------------------------------------------------------------------------------

const save = (blob, suffix) => {
  const link = make("a", undefined, {
    href: URL.createObjectURL(blob), download: nameOfFiles().replace(/\.\w+$/, "") + suffix,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

element("save-json").addEventListener("click", () => {
  const { signal, ...answer } = state.answer;
  const kept = { file: nameOfFiles(), ...answer };
  if (state.explanation) kept.explanation = state.explanation;
  const text = JSON.stringify(kept, null, 2);
  save(new Blob([text], { type: "application/json" }), ".json");
});

const drawLinesOfText = (ctx, lines, x, y) => {
  lines.forEach(([font, text], k) => {
    ctx.font = font;
    ctx.fillText(text, x, y + 5 * k);
  });
};

element("save-png").addEventListener("click", () => {
  const { page, recording, overlay } = paper;
  const { answer, metadata } = state;
  const said = ranked(answer).slice(0, LABELS_AT_FIRST).map((label) => {
    const word = answer.decisions.includes(label) ? "decided" : "not decided";
    return `${label} ${answer.probabilities[label].toFixed(3)} ${word}`;
  });
  const rows = [];
  for (let k = 0; k < said.length; k += 4) {
    rows.push(["4px sans-serif", said.slice(k, k + 4).join("   ·   ")]);
  }
  const notes = [...answer.remarks, ...answer.warnings].map((text) =>
    ["3.5px sans-serif", capital(text)]);
  const { explanation } = state;
  if (overlay) notes.push(["3.5px sans-serif", `Colour: ${explanationTitle(explanation)}`]);
  const [top, bottom] = [16, 12 + 5 * (rows.length + notes.length)];
  const canvas = make("canvas");
  const scale = Math.min(8, 8000 / (page.width + 10));
  canvas.width = (page.width + 10) * scale;
  canvas.height = (page.height + top + bottom) * scale;
  const ctx = canvas.getContext("2d");
  ctx.scale(scale, scale);
  ctx.fillStyle = "#fff";
  ctx.fillRect(0, 0, page.width + 10, page.height + top + bottom);
  ctx.fillStyle = INK;
  const facts = `${page.speed} mm/s   ${page.gain} mm/mV   ${element("facts").textContent}`;
  drawLinesOfText(ctx, [
    ["bold 5px sans-serif", nameOfFiles()],
    ["3.5px sans-serif", `${facts}   model ${metadata.model}   ${DISCLAIMER}`],
  ], 5, 7);
  drawLinesOfText(ctx, [...rows, ...notes], 5, top + page.height + 7);
  ctx.translate(5, top);
  drawPage(ctx, page, recording, overlay, scale);
  if (paper.calipers) paper.drawCalipers(ctx);
  canvas.toBlob((blob) => save(blob, ".png"), "image/png");
});

// Beginning -------------------------------------------------------------------------------------

(async () => {
  try {
    const health = await ask("/health");
    if (health.needs_token) askForToken("");
    else begin();
  } catch (error) {
    element("error").textContent = error.message;
  }
})();
"""
