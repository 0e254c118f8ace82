"""The report's script: tables that sort, curves that read out. The page is whole without it."""

# Plain JavaScript that asks for nothing and evaluates nothing; what it shows it sets as text.
REPORT_SCRIPT = r"""
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);

  // Tables -------------------------------------------------------------------------------------

  const numberIn = (text) => {
    const found = text.replace(/,/g, "").replace("\u2212", "-").match(/[-+]?\d+(\.\d+)?/);
    return found ? Number(found[0]) : NaN;
  };

  const compare = (isNumber, sign) => (a, b) => {
    if (isNumber) {
      const [x, y] = [numberIn(a.text), numberIn(b.text)];
      // What is no number stays at the end either way.
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    }
    return sign * a.text.localeCompare(b.text, "en", { numeric: true });
  };

  const sortBy = (table, column) => {
    const heads = [...table.tHead.rows[0].cells];
    const head = heads[column];
    const isNumber = head.dataset.kind === "number";
    const before = head.getAttribute("aria-sort");
    const first = isNumber ? "descending" : "ascending";
    const other = isNumber ? "ascending" : "descending";
    const now = before === first ? other : first;
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", now);
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
    rows.sort(compare(isNumber, now === "ascending" ? 1 : -1));
    body.append(...rows.map(({ row }) => row));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      if (!button.textContent) return;
      button.title = "Sort by this column";
      button.addEventListener("click", () => sortBy(table, column));
      head.append(button);
    });
  }

  // Curves -------------------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";

  for (const figure of document.querySelectorAll("figure.chart")) {
    const chart = data.charts[figure.dataset.chart];
    const svg = figure.querySelector("svg");
    const readout = figure.querySelector(".readout");
    const lines = chart.series.map((_, k) => svg.querySelector(`[data-line="${k}"]`));
    const dot = document.createElementNS(SVG, "circle");
    const hint = "Point at a line to read it, or use the arrow keys.";
    let here = null;
    dot.setAttribute("r", "4.5");
    dot.setAttribute("class", "dot");
    dot.style.display = "none";
    svg.append(dot);
    readout.textContent = hint;

    const isLit = (k) => !lines[k].classList.contains("faint");

    const show = (k, i) => {
      const line = chart.series[k];
      here = { k, i };
      dot.setAttribute("cx", line.px[i]);
      dot.setAttribute("cy", line.py[i]);
      dot.style.setProperty("--c", lines[k].style.getPropertyValue("--c"));
      dot.style.display = "";
      const said = [`${chart.x} ${line.x[i]}`, chart.y ? `${chart.y} ${line.y[i]}` : line.y[i]];
      if (line.at.length) said.push(line.at[i]);
      readout.textContent = `${line.name}: ${said.join(", ")}`;
    };

    const nearest = (x, y) => {
      let best = null;
      chart.series.forEach((line, k) => {
        // A grey line is read only where no coloured one is near.
        const handicap = isLit(k) ? 0 : 12;
        line.px.forEach((px, i) => {
          const distance = Math.hypot(px - x, line.py[i] - y) + handicap;
          if (!best || distance < best.distance) best = { k, i, distance };
        });
      });
      return best;
    };

    const point = (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const found = nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
      if (found) show(found.k, found.i);
    };

    const leave = () => {
      dot.style.display = "none";
      readout.textContent = hint;
    };

    const step = (event) => {
      const lit = chart.series.map((_, k) => k).filter(isLit);
      if (!lit.length || !event.key.startsWith("Arrow")) return;
      event.preventDefault();
      let { k, i } = here && isLit(here.k) ? here : { k: lit[0], i: -1 };
      const at = lit.indexOf(k);
      if (event.key === "ArrowRight") i += 1;
      if (event.key === "ArrowLeft") i -= 1;
      if (event.key === "ArrowDown") k = lit[(at + 1) % lit.length];
      if (event.key === "ArrowUp") k = lit[(at + lit.length - 1) % lit.length];
      show(k, Math.min(Math.max(i, 0), chart.series[k].px.length - 1));
    };

    svg.setAttribute("tabindex", "0");
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("keydown", step);
    svg.addEventListener("blur", leave);

    for (const item of figure.querySelectorAll(".legend li")) {
      const k = Number(item.dataset.line);
      const button = document.createElement("button");
      button.type = "button";
      button.append(...item.childNodes);
      item.append(button);
      const tell = () => {
        button.setAttribute("aria-pressed", String(isLit(k)));
        item.classList.toggle("off", !isLit(k));
      };
      button.addEventListener("click", () => {
        lines[k].classList.toggle("faint");
        if (isLit(k)) dot.before(lines[k]);
        tell();
      });
      item.addEventListener("pointerenter", () => lines[k].classList.add("bold"));
      item.addEventListener("pointerleave", () => lines[k].classList.remove("bold"));
      button.addEventListener("focus", () => lines[k].classList.add("bold"));
      button.addEventListener("blur", () => lines[k].classList.remove("bold"));
      tell();
    }
  }

  // Paper --------------------------------------------------------------------------------------

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const each of opened) each.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const each of opened) each.open = false;
  });
})();
"""
