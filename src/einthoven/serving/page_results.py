"""The page's tables and sentences: what the model says, and how well it is known to say it."""

# Everything that comes from a file or the service is set as text, never as HTML.
RESULTS_SCRIPT = r"""
// Answers ---------------------------------------------------------------------------------------

const LABELS_AT_FIRST = 12;

const make = (tag, text, attributes = {}) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

const listInto = (list, lines) => list.replaceChildren(...lines.map((line) => make("li", line)));

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

const interval = (figure) => {
  if (!figure) return "none";
  const value = figure.value.toFixed(3);
  if (figure.low === null || figure.high === null) return value;
  return `${value} (${figure.low.toFixed(3)}–${figure.high.toFixed(3)})`;
};

const showModel = (metadata) => {
  const parts = [
    `${metadata.label_set}, ${metadata.labels.length} labels`,
    `${metadata.window_seconds} s at ${metadata.fs} Hz`,
  ];
  if (metadata.scores) {
    const { n, headline } = metadata.scores;
    const score = headline["macro AUROC"];
    parts.push(`${n} test records, macro AUROC ${interval(score)}`);
  } else {
    parts.push("no test scores lie beside this model");
  }
  element("model-line").textContent = parts.join(" · ");
  const formats = Object.values(metadata.formats).join(", ");
  element("formats").textContent = `${formats}; a WFDB record as header and signal file together. `
    + "Nothing of it is kept.";
};

// Decided labels first, then by how likely they are.
const ranked = (answer) => {
  const isDecided = (label) => answer.decisions.includes(label);
  return Object.keys(answer.probabilities).sort((a, b) =>
    isDecided(b) - isDecided(a) || answer.probabilities[b] - answer.probabilities[a]);
};

const meter = (probability, threshold) => {
  const node = make("div", undefined, { class: "meter", "aria-hidden": "true" });
  const bar = make("i");
  bar.style.width = `${100 * probability}%`;
  node.append(bar);
  if (threshold !== undefined) {
    const mark = make("s");
    mark.style.left = `${100 * threshold}%`;
    node.append(mark);
  }
  return node;
};

const barRow = (label, answer, metadata) => {
  const probability = answer.probabilities[label];
  const threshold = answer.thresholds[label];
  const isDecided = answer.decisions.includes(label);
  const row = make("tr", undefined, isDecided ? { class: "yes" } : {});
  const name = make("th", undefined, { scope: "row" });
  name.append(make("b", label));
  if (metadata.titles[label]) name.append(make("small", metadata.titles[label]));
  const scores = metadata.scores && metadata.scores.auroc;
  if (scores && label in scores) {
    name.append(make("small", `test AUROC ${interval(scores[label])}`, { class: "auroc" }));
  }
  const cell = make("td");
  cell.append(meter(probability, threshold));
  const word = make("span", isDecided ? "decided" : "not decided", { class: "word" });
  const said = make("span", undefined, { class: "said" });
  said.append(make("b", probability.toFixed(3)), " ", word);
  cell.append(said);
  if (threshold !== undefined) cell.append(make("small", `threshold ${threshold.toFixed(3)}`));
  row.append(name, cell);
  return row;
};

const showBars = (answer, metadata, isAll) => {
  const labels = ranked(answer);
  const most = isAll ? labels.length : Math.max(LABELS_AT_FIRST, answer.decisions.length);
  const shown = labels.slice(0, most);
  const head = make("thead");
  const row = make("tr");
  row.append(make("th", "label", { scope: "col" }), make("th", "probability", { scope: "col" }));
  head.append(row);
  const body = make("tbody");
  body.append(...shown.map((label) => barRow(label, answer, metadata)));
  element("bars").replaceChildren(head, body);
  const button = element("all-labels");
  button.hidden = shown.length === labels.length;
  button.textContent = `Show all ${labels.length} labels`;
};

const showDecisions = (answer, metadata) => {
  const line = element("decided");
  if (!answer.decisions.length) {
    line.textContent = "None of its labels is decided.";
    return;
  }
  line.replaceChildren("Decided: ", ...answer.decisions.flatMap((label, k) => {
    const title = metadata.titles[label];
    return [k ? ", " : "", make("strong", label), title ? ` (${title})` : ""];
  }));
};

const barsNote = (answer, metadata) => {
  const calibrated = metadata.calibration.method === "none"
    ? "Probabilities are not calibrated."
    : `Probabilities are calibrated on ${metadata.calibration.n} records`
      + (metadata.calibration.pooled.length
        ? `; ${metadata.calibration.pooled.join(", ")} had too few of its own.` : ".");
  const decided = metadata.task === "single"
    ? "The likeliest label is decided."
    : `The mark on a bar is the threshold (rule ${answer.threshold_rule}).`;
  const { scores } = metadata;
  const tested = scores
    ? ` Test AUROC is of ${scores.n} records of ${scores.n_patient_groups} patients, with its `
      + "95 % interval: how well the label is told on such records, not how sure this "
      + "answer is."
    : "";
  return `${calibrated} ${decided}${tested}`;
};

const showConformal = (answer) => {
  const coverages = Object.keys(answer.conformal);
  element("conformal").hidden = !coverages.length;
  if (!coverages.length) return;
  const select = element("coverage");
  const wanted = select.value || "0.9";
  select.replaceChildren(...coverages.map((each) =>
    make("option", `${Math.round(100 * each)} %`, { value: each })));
  select.value = coverages.includes(wanted) ? wanted : coverages[0];
  const labels = answer.conformal[select.value];
  element("conformal-text").textContent = labels.length
    ? labels.join(", ") : "No label is left: the recording is unlike those of the calibration.";
};

const duration = (seconds) => {
  if (seconds < 120) return `${Number(seconds.toFixed(1))} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
};

const formatTitle = (name, metadata) => metadata.formats[name] || name;

const showFacts = (answer, metadata, name) => {
  element("result-title").textContent = name;
  const { length } = answer.leads_present;
  element("facts").textContent = [
    formatTitle(answer.format, metadata),
    `${Number(answer.fs.toFixed(3))} Hz`,
    duration(answer.seconds),
    length === 12 ? "12 leads" : `${length} of 12 leads`,
  ].join(" · ");
  listInto(element("remarks"), answer.remarks.map(capital));
  listInto(element("warnings"), answer.warnings.map(capital));
  listInto(element("steps"), answer.steps.length ? answer.steps.map(capital) : ["Nothing"]);
};

// Explanations ----------------------------------------------------------------------------------

// The strongest hundredth may saturate; otherwise a single moment would leave the rest pale.
const strongest = (rows) => {
  const all = rows.flatMap((row) => row.map(Math.abs)).sort((a, b) => a - b);
  return all[Math.floor(0.99 * (all.length - 1))] || all[all.length - 1] || 1;
};

const overlayFrom = (explanation) => {
  const { step_s: step, by_lead: values } = explanation.attribution;
  return { fs: 1 / step, values, most: strongest(Object.values(values)) };
};

const explanationTitle = (explanation) =>
  `what speaks for ${explanation.label} (blue) and against it (orange), by `
  + `${explanation.method_in_words}`;

const percent = (share) => `${(100 * share).toFixed(0)} %`;

const shareTable = (table, what, rows) => {
  const cells = (tag, texts) => {
    const row = make("tr");
    texts.forEach((text, k) => {
      const isName = tag === "th" || k === 0;
      row.append(make(isName ? "th" : "td", text, { scope: tag === "th" ? "col" : "row" }));
    });
    return row;
  };
  const head = make("thead");
  head.append(cells("th", [what, "share", "for", "against"]));
  const body = make("tbody");
  body.append(...rows.map(([name, share]) =>
    cells("td", [name, percent(share.share), percent(share.for), percent(share.against)])));
  table.replaceChildren(head, body);
};

const tellExplanation = (explanation) => {
  const lines = [capital(`${explanationTitle(explanation)}.`), ...explanation.summary,
    ...explanation.remarks];
  listInto(element("explain-text"), lines.map(capital));
  const leads = Object.entries(explanation.leads).sort((a, b) => b[1].share - a[1].share);
  element("explain-tables").open = false;
  shareTable(element("explain-leads"), "lead", leads);
  element("explain-leads").hidden = !leads.length;
  shareTable(element("explain-beats"), "beat", explanation.beats.map((beat) =>
    [`${beat.number}, at ${beat.peak_s.toFixed(1)} s`, beat]));
};
"""
