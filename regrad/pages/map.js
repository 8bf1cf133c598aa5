// --------------------------------------------------------------------------------------------------- the map

// Okabe and Ito's colours but yellow, which is too pale on white, the darkest first; on black the lightest are the first.
const HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const onBlack = () => matchMedia("(prefers-color-scheme: dark)").matches && !document.documentElement.classList.contains("paper");
const hue = (place) => (onBlack() ? [...HUES].reverse() : HUES)[place % HUES.length];
// Of cividis, in steps of light: on white the highest is the darkest, on black the lightest.
const STEPS = ["#2b4d8f", "#575d6d", "#7f7c75", "#b3a26b", "#f0d842"];
const LISTED = 200; // selected images that are listed
const NEAR = 14; // pixels from a point that a pointer or a finger may be
const MARGIN = 20; // around what is on the screen, where places go from 0 to 4095

const turned = (corners) => (path, x, y, r) => {
  corners.forEach(([dx, dy], place) => path[place ? "lineTo" : "moveTo"](x + r * dx, y + r * dy));
  path.closePath();
};
const SHAPES = [
  (path, x, y, r) => (path.moveTo(x + r, y), path.arc(x, y, r, 0, 7)),
  turned([[0, -1.35], [1.2, 0.85], [-1.2, 0.85]]),
  turned([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]),
  turned([[0, -1.4], [1.1, 0], [0, 1.4], [-1.1, 0]]),
  turned([[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]]),
];

function showMap(points) {
  const root = document.getElementById("chart");
  const [form, legend, canvas, point, chosen] = ["form", ".legend", "canvas", ".point", ".chosen"].map((name) => root.querySelector(name));
  const listed = chosen.querySelector(".listed");
  const button = (name) => chosen.querySelector(`[name="${name}"]`);
  const size = points.x.length;
  const every = [...points.x.keys()];
  const uncertainty = (at) => points.score[at] ?? -Infinity;
  const ranked = every.slice().sort((a, b) => uncertainty(b) - uncertainty(a) || a - b);
  const className = (at) => (points.class[at] < 0 ? "–" : points.classes[points.class[at]]);
  const pictured = Object.keys(points.pictures).length > 0;
  const selected = new Set();
  let groups = []; // of the colouring: name, hue, shape, radius, members
  let cursor = -1; // the point that the keyboard or the pointer is on
  let view = around(every); // what of the plane is on the screen
  let drawn = null; // the lasso or box that is being drawn, as corners
  let dragged = false; // whether what the pointer did last was to draw one

  // ---- colourings: each cuts the points into groups, which have a button, a hue and a shape

  function byNumber(names, numbers, style) {
    const members = names.map(() => []);
    numbers.forEach((number, at) => number >= 0 && members[number].push(at));
    return names.map((name, place) => ({ name, members: members[place], ...style(place) }));
  }

  const COLOURS = {
    set: () => byNumber(points.sets, points.set, (place) => ({ hue: hue(place), shape: place % SHAPES.length })),
    class() {
      const named = byNumber(points.classes, points.class, () => ({})).sort((a, b) => b.members.length - a.members.length);
      const marked = named.slice(0, HUES.length * SHAPES.length).map((group, place) => ({ ...group, hue: hue(place), shape: Math.floor(place / HUES.length) }));
      const held = new Set(marked.flatMap((group) => group.members));
      const others = every.filter((at) => !held.has(at));
      return others.length ? [{ name: "other classes", members: others, shape: 0 }, ...marked] : marked;
    },
    score() {
      const scored = ranked.filter((at) => points.score[at] !== null).reverse();
      const dark = onBlack();
      return STEPS.map((_, step) => {
        const members = scored.slice(Math.floor((step * scored.length) / 5), Math.floor(((step + 1) * scored.length) / 5));
        const [low, high] = [members[0], members[members.length - 1]].map((at) => points.score[at]);
        return { name: members.length ? `${low} to ${high}` : "", members, hue: STEPS[dark ? step : 4 - step], shape: 0, radius: 2.4 + 0.4 * step };
      }).filter((group) => group.members.length);
    },
    flagged: () =>
      byNumber(["not flagged", "flagged"], points.flagged, (place) => (place ? { hue: hue(1), shape: 1, radius: 4 } : { shape: 0 })),
  };
  const TITLES = { set: "set", class: "predicted class", score: points.name, flagged: "flagged or not" };

  // ---- drawing

  function around(members) {
    const [[x, width], [y, height]] = [points.x, points.y].map((values) => {
      const [low, high] = members.reduce(([least, most], at) => [Math.min(least, values[at]), Math.max(most, values[at])], [Infinity, -Infinity]);
      const margin = Math.max(MARGIN, 0.04 * (high - low));
      return [low - margin, high - low + 2 * margin];
    });
    return { x, y, width, height };
  }

  // What gives the pixel of a point.
  function projection() {
    const { clientWidth: width, clientHeight: height } = canvas;
    const scale = Math.min(width / view.width, height / view.height);
    const [left, low] = [width / 2 - (view.x + view.width / 2) * scale, height / 2 + (view.y + view.height / 2) * scale];
    return (at) => [left + points.x[at] * scale, low - points.y[at] * scale];
  }

  function paint() {
    const colors = theme();
    const onScreen = projection();
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const room = (canvas.clientWidth * canvas.clientHeight) / (150 * size); // many points on a small screen are small ones
    const shrunk = Math.max(0.5, Math.min(1, Math.sqrt(room)));
    const marks = (members, group, grow) => {
      context.beginPath();
      for (const at of members) SHAPES[group.shape](context, ...onScreen(at), shrunk * (group.radius ?? 3) + grow);
    };
    for (const front of [false, true]) {
      for (const group of groups) {
        const members = group.members.filter((at) => selected.has(at) === front);
        if (!members.length) continue;
        context.globalAlpha = front ? 1 : selected.size ? 0.22 : 0.85;
        context.fillStyle = group.hue ?? colors.soft;
        marks(members, group, front ? 1 : 0);
        context.fill();
        if (!front) continue;
        context.lineWidth = 0.6;
        context.strokeStyle = colors.ink;
        context.stroke();
      }
    }
    context.globalAlpha = 1;
    context.strokeStyle = colors.ink;
    if (cursor >= 0) {
      context.lineWidth = 2;
      context.beginPath();
      context.arc(...onScreen(cursor), 9, 0, 7);
      context.stroke();
    }
    if (drawn) {
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.beginPath();
      turned(outline())(context, 0, 0, 1);
      context.stroke();
    }
  }

  let asked = false;
  function repaint() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      paint();
    });
  }

  function recolour() {
    groups = COLOURS[select(form, "colour").value]();
    legend.replaceChildren(...groups.map(legendButton));
    showPressed();
    repaint();
  }

  function legendButton(group) {
    const element = document.createElement("button");
    element.type = "button";
    const mark = document.createElement("canvas");
    [mark.width, mark.height] = [28, 28];
    mark.setAttribute("aria-hidden", "true");
    const context = mark.getContext("2d");
    context.fillStyle = group.hue ?? theme().soft;
    context.beginPath();
    SHAPES[group.shape](context, 14, 14, 8);
    context.fill();
    const name = document.createElement("bdi");
    name.textContent = group.name;
    const count = document.createElement("small");
    count.textContent = group.members.length.toLocaleString("en");
    element.append(mark, name, count);
    element.addEventListener("click", () => {
      const all = group.members.every((at) => selected.has(at));
      group.members.forEach((at) => (all ? selected.delete(at) : selected.add(at)));
      changed();
    });
    return element;
  }

  function showPressed() {
    [...legend.children].forEach((element, place) =>
      element.setAttribute("aria-pressed", String(groups[place].members.every((at) => selected.has(at)))),
    );
  }

  // ---- the selection

  function changed() {
    const shown = ranked.filter((at) => selected.has(at)).slice(0, LISTED);
    const more = selected.size > LISTED ? `; the ${LISTED} most uncertain are listed` : "";
    chosen.querySelector("output").textContent = selected.size
      ? `${selected.size.toLocaleString("en")} of ${size.toLocaleString("en")} selected${more}`
      : "None selected.";
    listed.replaceChildren(...shown.map(card));
    listed.removeAttribute("aria-activedescendant");
    chosen.querySelectorAll("button").forEach((element) => (element.disabled = !selected.size && element.name !== "zoom"));
    button("zoom").disabled = !selected.size && button("zoom").getAttribute("aria-pressed") === "false";
    showPressed();
    repaint();
  }

  function choose(members, add) {
    if (!add) selected.clear();
    members.forEach((at) => selected.add(at));
    changed();
  }

  const said = (at) => [
    `predicted ${className(at)}`,
    `${points.name} ${points.score[at] ?? "–"}${points.flagged[at] ? ", flagged" : ""}`,
    ...(points.sets.length > 1 ? [points.sets[points.set[at]]] : []),
  ];

  function line(text, kind) {
    const element = document.createElement("span");
    element.className = kind;
    const inner = document.createElement("bdi");
    inner.textContent = text;
    element.title = text;
    element.append(inner);
    return element;
  }

  function picture(at) {
    const [uri, width, height] = points.pictures[at] ?? [];
    const element = document.createElement(uri ? "img" : "span");
    if (uri) Object.assign(element, { src: uri, width, height, alt: "", decoding: "async", className: width <= 96 ? "small" : "" });
    else Object.assign(element, { className: "missing", textContent: "no picture", hidden: !pictured });
    return element;
  }

  function card(at) {
    const element = document.createElement("li");
    element.id = `chart-${at}`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", "true");
    const text = document.createElement("span");
    text.append(line(points.id[at], "line"), ...said(at).map((words) => line(words, "line soft")));
    element.append(picture(at), text);
    element.addEventListener("click", () => go(at));
    return element;
  }

  // The point that is looked at, wherever it is chosen: on the map, or in the list.
  function go(at) {
    cursor = at;
    const text = document.createElement("span");
    if (at >= 0) text.append(line(points.id[at], "line"), ...said(at).map((words) => line(words, "line soft")));
    point.replaceChildren(...(at < 0 ? [] : [picture(at), text]));
    for (const element of listed.children) element.classList.toggle("at", element.id === `chart-${at}`);
    repaint();
  }

  function asCsv() {
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const row = (at) => [points.sets[points.set[at]], points.id[at], points.sources[points.source[at]], points.row[at], className(at), points.score[at] ?? ""];
    const lines = [["set", "id", "source", "row", "prediction", points.name], ...ranked.filter((at) => selected.has(at)).map(row)];
    return lines.map((fields) => `${fields.map(quoted).join(",")}\n`).join("");
  }

  // ---- pointer

  const outline = () => {
    if (select(form, "drag").value !== "box") return drawn;
    const [[left, top], [right, bottom]] = [drawn[0], drawn[drawn.length - 1]];
    return [[left, top], [right, top], [right, bottom], [left, bottom]];
  };

  // By the crossings of a ray to the right.
  function inside([x, y], corners) {
    let within = false;
    corners.forEach(([x1, y1], place) => {
      const [x2, y2] = corners[(place || corners.length) - 1];
      if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) within = !within;
    });
    return within;
  }

  function nearest(x, y, most) {
    const onScreen = projection();
    let [best, least] = [-1, most * most];
    for (const at of every) {
      const [px, py] = onScreen(at);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [at, distance];
    }
    return best;
  }

  canvas.addEventListener("pointerdown", (event) => {
    dragged = false;
    if (event.button || select(form, "drag").value === "none") return;
    canvas.setPointerCapture(event.pointerId);
    drawn = [[event.offsetX, event.offsetY]];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drawn) drawn.push([event.offsetX, event.offsetY]);
    else if (event.pointerType === "mouse") go(nearest(event.offsetX, event.offsetY, NEAR));
    if (drawn) repaint();
  });
  canvas.addEventListener("pointerup", (event) => {
    const corners = drawn && outline();
    drawn = null;
    if (!corners || !corners.some(([x, y]) => Math.hypot(x - corners[0][0], y - corners[0][1]) > 4)) return;
    const onScreen = projection();
    choose(every.filter((at) => inside(onScreen(at), corners)), event.shiftKey);
    dragged = true;
  });
  canvas.addEventListener("pointercancel", () => {
    drawn = null;
    repaint();
  });
  canvas.addEventListener("click", (event) => {
    if (dragged) return; // the end of a lasso is no click
    const at = nearest(event.offsetX, event.offsetY, NEAR);
    go(at);
    choose(at < 0 ? [] : [at], event.shiftKey);
  });

  // ---- keyboard

  const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  // The nearest point whose direction is within 45 degrees of the arrow's.
  function neighbour([dx, dy]) {
    if (cursor < 0) return ranked[0];
    const onScreen = projection();
    const [x, y] = onScreen(cursor);
    let [best, least] = [cursor, Infinity];
    for (const at of every) {
      const [px, py] = onScreen(at);
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy + (py - y) * dx);
      if (along > 0 && along >= across && along ** 2 + across ** 2 < least) [best, least] = [at, along ** 2 + across ** 2];
    }
    return best;
  }

  canvas.addEventListener("keydown", (event) => {
    const keys = {
      Enter: () => cursor >= 0 && (selected.has(cursor) ? selected.delete(cursor) : selected.add(cursor), changed()),
      Escape: () => choose([], false),
      Home: () => go(ranked[0]),
    };
    keys[" "] = keys.Enter;
    const does = event.key in ARROWS ? () => go(neighbour(ARROWS[event.key])) : keys[event.key];
    if (!does || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    does();
  });
  canvas.addEventListener("focus", () => cursor < 0 && canvas.matches(":focus-visible") && go(ranked[0]));

  listed.addEventListener("keydown", (event) => {
    const cards = [...listed.children];
    const now = cards.findIndex((element) => element.id === listed.getAttribute("aria-activedescendant"));
    const to = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: cards.length - 1 }[event.key];
    if (to === undefined || !cards.length) return;
    event.preventDefault();
    const element = cards[Math.max(0, Math.min(cards.length - 1, to))];
    listed.setAttribute("aria-activedescendant", element.id);
    go(Number(element.id.split("-")[1]));
    element.scrollIntoView({ block: "nearest" });
  });

  // ---- controls

  function zoom() {
    const out = button("zoom").getAttribute("aria-pressed") === "true";
    view = around(out ? every : [...selected]);
    button("zoom").setAttribute("aria-pressed", String(!out));
    button("zoom").textContent = out ? "Zoom to them" : "Whole map";
    changed();
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
    link.download = "selected.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  }

  const colours = Object.keys(COLOURS).filter((key) => key !== "set" || points.sets.length > 1);
  select(form, "colour").append(...colours.map((key) => new Option(TITLES[key], key)));
  if (coarse.matches) select(form, "drag").value = "none"; // a finger scrolls the page
  const scrolls = () => (canvas.style.touchAction = select(form, "drag").value === "none" ? "auto" : "none");
  select(form, "colour").addEventListener("input", recolour);
  select(form, "drag").addEventListener("input", scrolls);
  select(form, "find").addEventListener("input", () => {
    const find = select(form, "find").value.toLowerCase();
    choose(find ? every.filter((at) => points.id[at].toLowerCase().includes(find)) : [], false);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  button("download").addEventListener("click", save);
  button("copy").addEventListener("click", () => navigator.clipboard.writeText(asCsv()));
  button("copy").hidden = !navigator.clipboard;
  button("zoom").addEventListener("click", zoom);
  button("clear").addEventListener("click", () => choose([], false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  for (const event of ["beforeprint", "afterprint"]) addEventListener(event, () => (recolour(), paint()));
  root.hidden = false;
  new ResizeObserver(repaint).observe(canvas);
  scrolls();
  recolour();
  changed();
  paint();
}

// After the page's own script, so that what happens on paper happens to the plots first.
if (data.map) queueMicrotask(() => showMap(data.map));
