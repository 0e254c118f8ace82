"""The page's view of the paper: zoom, move, calipers; by mouse, touch and keyboard."""

MEASURING_SCRIPT = r"""
// View ------------------------------------------------------------------------------------------

const element = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const LEAST_SCALE = 1;
const MOST_SCALE = 24;
// On a narrow screen a whole page would be too small to read: it starts larger, and is moved.
const READABLE_SCALE = 2.9;
const HANDLE = 12;
const HANDLE_OF_A_FINGER = 26;
// Steps of the arrow keys: seconds and millivolts, without and with Shift.
const TIME_STEPS = [0.005, 0.04];
const VOLT_STEPS = [0.025, 0.1];

class PaperView {
  constructor(canvas) {
    this.canvas = canvas;
    this.recording = null;
    this.overlay = null;
    this.settings = { layout: "3x4", speed: 25, gain: 10, start: 0 };
    this.tool = "pan";
    this.calipers = null;
    this.march = false;
    this.onChange = () => {};
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
  }

  show(recording) {
    this.recording = recording;
    this.overlay = null;
    this.calipers = null;
    this.settings.start = 0;
    if (!layoutsFor(recording).includes(this.settings.layout)) {
      [this.settings.layout] = layoutsFor(recording);
    }
    this.layOutAgain();
    this.fit();
  }

  change(settings) {
    // Calipers are in millimetres: another scale or page would make them lie.
    Object.assign(this.settings, settings);
    this.calipers = null;
    this.layOutAgain();
    this.fit();
  }

  layOutAgain() {
    if (this.recording) this.page = layOut(this.recording, this.settings);
  }

  fit() {
    if (!this.page) return;
    this.x = 0;
    this.y = 0;
    this.scale = Math.max(READABLE_SCALE, this.canvas.clientWidth / this.page.width);
    this.resize();
  }

  resize() {
    if (!this.page || !this.canvas.clientWidth) return;
    const width = this.canvas.clientWidth;
    const most = Math.max(320, window.innerHeight * (this.settings.layout === "12x1" ? 1.1 : 0.85));
    const fitting = Math.max(READABLE_SCALE, width / this.page.width);
    const height = Math.round(Math.min(most, this.page.height * fitting));
    const ratio = window.devicePixelRatio || 1;
    // The border belongs to the height that CSS sets.
    this.canvas.style.height = `${height + 2}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.size = { width, height, ratio };
    this.settle();
  }

  settle() {
    const { width, height } = this.size;
    this.scale = clamp(this.scale, LEAST_SCALE, MOST_SCALE);
    this.x = clamp(this.x, 0, Math.max(0, this.page.width - width / this.scale));
    this.y = clamp(this.y, 0, Math.max(0, this.page.height - height / this.scale));
    // Where there is nothing above or below, a finger that moves up or down scrolls the page.
    const isTaller = this.page.height * this.scale > height + 1;
    this.canvas.style.touchAction = this.tool === "pan" && !isTaller ? "pan-y" : "none";
    this.draw();
    this.onChange();
  }

  draw() {
    const ctx = this.canvas.getContext("2d");
    const { width, height, ratio } = this.size;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    ctx.scale(this.scale, this.scale);
    ctx.translate(-this.x, -this.y);
    drawPage(ctx, this.page, this.recording, this.overlay, this.scale);
    if (this.calipers) this.drawCalipers(ctx);
  }

  zoom(factor, at) {
    if (!this.page) return;
    const { width, height } = this.size;
    const point = at || { x: width / 2, y: height / 2 };
    const before = this.toPaper(point);
    this.scale = clamp(this.scale * factor, LEAST_SCALE, MOST_SCALE);
    this.x = before.x - point.x / this.scale;
    this.y = before.y - point.y / this.scale;
    this.settle();
  }

  moveBy(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.settle();
  }

  toPaper(point) {
    return { x: this.x + point.x / this.scale, y: this.y + point.y / this.scale };
  }

  take(tool) {
    this.tool = tool;
    this.canvas.classList.toggle("calipers", tool === "calipers");
    if (this.page) this.settle();
  }

  // Calipers ------------------------------------------------------------------------------------

  measured() {
    if (!this.calipers) return null;
    const { a, b } = this.calipers;
    const ms = Math.abs(b.x - a.x) / this.page.speed * 1000;
    const mv = (a.y - b.y) / this.page.gain;
    return { ms, mv, rate: ms >= 1 ? 60000 / ms : null, lead: stripAt(this.page, a.x, a.y).lead };
  }

  drawCalipers(ctx) {
    const { a, b, active } = this.calipers;
    const { width, height } = this.page;
    const thin = 1.2 / this.scale;
    ctx.fillStyle = "rgba(11, 92, 148, 0.10)";
    ctx.fillRect(Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(a.x - b.x), Math.abs(a.y - b.y));
    ctx.strokeStyle = "#0b5c94";
    ctx.lineWidth = thin;
    const line = (...points) => {
      ctx.beginPath();
      points.forEach(([x, y], k) => (k ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
      ctx.stroke();
    };
    for (const end of [a, b]) {
      line([end.x, 0], [end.x, height]);
      line([Math.min(a.x, b.x) - 4, end.y], [Math.max(a.x, b.x) + 4, end.y]);
    }
    const gap = Math.abs(b.x - a.x);
    if (this.march && gap > 1) {
      ctx.setLineDash([6 / this.scale, 4 / this.scale]);
      const from = Math.max(a.x, b.x);
      for (let x = from + gap; x < width; x += gap) line([x, 0], [x, height]);
      for (let x = Math.min(a.x, b.x) - gap; x > PULSE; x -= gap) line([x, 0], [x, height]);
      ctx.setLineDash([]);
    }
    for (const [name, end] of [["a", a], ["b", b]]) {
      ctx.beginPath();
      ctx.arc(end.x, end.y, 4.5 / this.scale, 0, 2 * Math.PI);
      ctx.fillStyle = name === active ? "#0b5c94" : "#fff";
      ctx.fill();
      ctx.stroke();
    }
  }

  setCalipers(calipers) {
    this.calipers = calipers;
    if (calipers) {
      for (const end of [calipers.a, calipers.b]) {
        end.x = clamp(end.x, 0, this.page.width);
        end.y = clamp(end.y, 0, this.page.height);
      }
    }
    this.draw();
    this.onChange();
  }

  startCalipers() {
    const { width } = this.size;
    const strip = stripAt(this.page, this.x + width / 2 / this.scale, this.y + this.page.pitch / 2);
    const x = clamp(this.x + width / 3 / this.scale, PULSE, this.page.width);
    const y = this.page.baseline(strip.row);
    const { speed, gain } = this.page;
    this.setCalipers({ a: { x, y }, b: { x: x + 0.2 * speed, y: y - 0.5 * gain }, active: "b" });
  }

  nearestEnd(point, reach) {
    if (!this.calipers) return null;
    const near = (name) => {
      const end = this.calipers[name];
      const [x, y] = [(end.x - this.x) * this.scale, (end.y - this.y) * this.scale];
      return Math.hypot(x - point.x, y - point.y);
    };
    const name = near("b") <= near("a") ? "b" : "a";
    return near(name) <= reach ? name : null;
  }

  // Pointers and keys ---------------------------------------------------------------------------

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.release(event));
    }
    canvas.addEventListener("wheel", (event) => {
      // The wheel alone scrolls the page; with Ctrl, as a pinch on a touchpad, it zooms.
      if (!event.ctrlKey || !this.page) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 200), this.pointOf(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  pointOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left - 1, y: event.clientY - box.top - 1 };
  }

  press(event) {
    if (!this.page || event.button) return;
    const point = this.pointOf(event);
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.pointers.set(event.pointerId, point);
    this.canvas.classList.add("held");
    if (this.tool !== "calipers" || this.pointers.size > 1) return;
    const reach = event.pointerType === "touch" ? HANDLE_OF_A_FINGER : HANDLE;
    const end = this.nearestEnd(point, reach);
    const at = this.toPaper(point);
    if (end) this.setCalipers({ ...this.calipers, active: end });
    else this.setCalipers({ a: { ...at }, b: { ...at }, active: "b" });
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const point = this.pointOf(event);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (one) => Math.max(20, Math.hypot(one.x - other.x, one.y - other.y));
      this.pointers.set(event.pointerId, point);
      this.zoom(apart(point) / apart(before), other);
      return;
    }
    this.pointers.set(event.pointerId, point);
    if (this.tool === "calipers" && this.calipers) {
      const { active } = this.calipers;
      this.setCalipers({ ...this.calipers, [active]: this.toPaper(point) });
    } else {
      this.moveBy((before.x - point.x) / this.scale, (before.y - point.y) / this.scale);
    }
  }

  release(event) {
    this.pointers.delete(event.pointerId);
    this.canvas.classList.remove("held");
  }

  key(event) {
    if (!this.page || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = arrows[event.key];
    const acts = {
      "+": () => this.zoom(1.25),
      "=": () => this.zoom(1.25),
      "-": () => this.zoom(0.8),
      0: () => this.fit(),
      c: () => element(this.tool === "pan" ? "tool-calipers" : "tool-pan").click(),
      C: () => element(this.tool === "pan" ? "tool-calipers" : "tool-pan").click(),
      Escape: () => this.setCalipers(null),
      Enter: () => this.calipers &&
        this.setCalipers({ ...this.calipers, active: this.calipers.active === "a" ? "b" : "a" }),
    };
    const act = step ? () => this.stepBy(step, event.shiftKey) : acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  stepBy([dx, dy], isLarge) {
    if (this.tool === "pan") {
      this.moveBy(dx * (isLarge ? 25 : 5), dy * (isLarge ? 25 : 5));
      return;
    }
    if (!this.calipers) {
      this.startCalipers();
      return;
    }
    const { active } = this.calipers;
    const end = this.calipers[active];
    const x = end.x + dx * TIME_STEPS[Number(isLarge)] * this.page.speed;
    const y = end.y + dy * VOLT_STEPS[Number(isLarge)] * this.page.gain;
    this.setCalipers({ ...this.calipers, [active]: { x, y } });
  }
}
"""
