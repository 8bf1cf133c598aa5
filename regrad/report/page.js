// ---------------------------------------------------------------------------------------------- pictures

const AT_ONCE = 200; // pictures; the browser then lays out as many, and a filter answers at once

function showPictures() {
  const form = document.getElementById("controls");
  const sheet = document.getElementById("sheet");
  const more = document.getElementById("more");
  let fitting = [];
  const cards = [...sheet.children].map((element, place) => ({
    element,
    place,
    views: element.dataset.views.split(" "),
    class: Number(element.dataset.class),
    source: Number(element.dataset.source),
    score: Number(element.dataset.score),
    own: Number(element.dataset.own ?? 2), // probability of a doubtful label; others come last
    id: element.querySelector(".id").textContent.toLowerCase(),
  }));
  const byKey = (key) => (a, b) => a[key] - b[key] || b.score - a.score;
  const orders = {
    "-score": (a, b) => b.score - a.score || a.place - b.place,
    score: (a, b) => a.score - b.score || a.place - b.place,
    class: byKey("class"),
    source: byKey("source"),
    own: byKey("own"),
  };

  function apply() {
    const chosen = Object.fromEntries(new FormData(form));
    const find = chosen.find.toLowerCase();
    const fits = (card) =>
      (!chosen.view || card.views.includes(chosen.view)) &&
      (!chosen.class || card.class === Number(chosen.class)) &&
      (!chosen.source || card.source === Number(chosen.source)) &&
      card.id.includes(find);
    fitting = cards.filter(fits).sort(orders[chosen.sort]);
    sheet.replaceChildren();
    showMore();
    document.getElementById("count").textContent = `${fitting.length} of ${cards.length} pictures`;
    document.getElementById("nothing").hidden = fitting.length > 0;
  }

  function showMore() {
    const shown = sheet.childElementCount;
    sheet.append(...fitting.slice(shown, shown + AT_ONCE).map((card) => card.element));
    const left = fitting.length - sheet.childElementCount;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(left, AT_ONCE)} more of ${left}`;
  }

  function chooseView() {
    // Errors and misses are the pictures the model was too sure of: the surest first.
    const sheet = select(form, "view").value.split("-").pop();
    select(form, "sort").value = { errors: "score", misses: "score", doubtful: "own" }[sheet] ?? "-score";
  }

  select(form, "view").addEventListener("input", chooseView); // before the form hears of it
  form.addEventListener("input", apply);
  more.addEventListener("click", showMore);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = cards.length === 0;
  chooseView();
  apply();
}

// ------------------------------------------------------------------------------------------------- plots

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];

function line(name, x, y, place, colors, more = {}) {
  return {
    type: "scatter",
    mode: "lines",
    name: plain(name),
    x,
    y,
    line: { color: colors.series[place % colors.series.length], dash: DASHES[place % DASHES.length], width: 2 },
    ...more,
  };
}

function diagonal(x, y, name, colors) {
  return {
    type: "scatter", mode: "lines", name, x, y, hoverinfo: "skip", line: { color: colors.soft, dash: "dash", width: 1 },
  };
}

function perScore(colors, curve) {
  return data.scores.flatMap((score, place) => {
    const found = curve(score);
    return found ? [line(score.name, found[0], found[1], place, colors)] : [];
  });
}

const chosenScore = () => data.scores.find((score) => score.name === select(choices, "score").value);
const chosenSet = () => (select(choices, "set") ? Number(select(choices, "set").value) : 0);
// Labels of one width: margins follow them, the legend's rows the margins, the plot's height the legend, and so on.
const shares = { tickformat: ".0%", rangemode: "tozero" };
const whole = { tickformat: ".0%", range: [-0.01, 1.03], dtick: 0.2 };

const PLOTS = {
  distribution(colors) {
    const score = chosenScore();
    const { edges, log, shares: sets } = score.histogram;
    const traces = sets.map((set, place) =>
      line(set.name, edges, [...set.shares, set.shares[set.shares.length - 1]], place, colors, {
        line: { color: place ? colors.series[(place - 1) % 5] : colors.known, dash: DASHES[place % 5], shape: "hv", width: 2 },
        fill: "tozeroy",
        fillcolor: `${place ? colors.series[(place - 1) % 5] : colors.known}2e`,
        hovertemplate: "%{x:.4g}: %{y:.1%}",
      }),
    );
    const layout = {
      xaxis: { title: plain(score.name) + (log ? " (log scale)" : ""), ...scale(log) },
      yaxis: { ...shares, title: "images", range: [0, 1.15 * Math.max(...sets.flatMap((set) => set.shares))] },
    };
    const inside = data.threshold >= edges[0] && data.threshold <= edges[edges.length - 1];
    if (score.name === data.main && inside) {
      layout.shapes = [
        { type: "line", x0: data.threshold, x1: data.threshold, y0: 0, y1: 1, yref: "paper", line: { color: colors.ink, width: 1, dash: "dot" } },
      ];
      // An annotation on a logarithmic axis wants the logarithm; a shape wants the value.
      const place = log ? Math.log10 : Number;
      const [first, last, x] = [edges[0], edges[edges.length - 1], data.threshold].map(place);
      const side = (x - first) / (last - first) > 0.7 ? "right" : "left"; // of the line, where there is room
      layout.annotations = [
        { x, y: 1, yref: "paper", yanchor: "top", text: "flagged →", showarrow: false, xanchor: side, font: { color: colors.ink } },
      ];
    }
    return [traces, layout];
  },
  roc(colors) {
    const traces = perScore(colors, (score) => [score.ood[chosenSet()].roc.fpr, score.ood[chosenSet()].roc.tpr]);
    traces.push(diagonal([0, 1], [0, 1], "chance", colors));
    return [traces, { xaxis: { ...whole, title: "known images flagged" }, yaxis: { ...whole, title: "unknown images caught" } }];
  },
  pr(colors) {
    const traces = perScore(colors, (score) => [score.ood[chosenSet()].pr.recall, score.ood[chosenSet()].pr.precision]);
    return [traces, { xaxis: { ...whole, title: "recall" }, yaxis: { ...whole, title: "precision" } }];
  },
  reliability(colors) {
    const { confidence, accuracy, images, intervals } = data.reliability;
    const largest = Math.max(...images);
    const bins = {
      type: "scatter",
      mode: "markers",
      name: "accuracy, with its 95 % interval",
      x: confidence,
      y: accuracy,
      customdata: images,
      hovertemplate: "confidence %{x:.1%}, accuracy %{y:.1%}, %{customdata:,} images<extra></extra>",
      error_y: {
        type: "data",
        symmetric: false,
        array: intervals.map(([, high], place) => high - accuracy[place]),
        arrayminus: intervals.map(([low], place) => accuracy[place] - low),
        color: colors.known,
        thickness: 1,
        width: 3,
      },
      marker: { color: colors.known, size: images.map((count) => 6 + 18 * Math.sqrt(count / largest)), opacity: 0.75 },
    };
    const traces = [diagonal([0, 1], [0, 1], "honest", colors), bins];
    const axis = { ...whole, range: [-0.04, 1.06] };
    return [traces, { xaxis: { ...axis, title: "confidence (larger dots: more images)" }, yaxis: { ...axis, title: "accuracy" } }];
  },
  risk(colors) {
    const traces = perScore(colors, (score) => score.errors && [score.errors.coverage, score.errors.risk]);
    return [traces, { xaxis: { ...whole, title: "share accepted" }, yaxis: { rangemode: "tozero", tickformat: ".1%", title: "errors among them" } }];
  },
  lift(colors) {
    const traces = perScore(colors, (score) => score.errors && [score.errors.coverage, score.errors.lift]);
    traces.push(diagonal([0, 1], [1, 1], "random order", colors));
    return [traces, { xaxis: { ...whole, title: "share accepted" }, yaxis: { tickformat: ".3f", title: "lift" } }];
  },
  sources(colors) {
    const trace = {
      type: "scatter",
      mode: "lines+markers",
      name: "flagged",
      x: data.sources.map((_, place) => place + 1),
      y: data.sources.map((source) => source.share),
      text: data.sources.map((source) => `${plain(source.name)}: ${source.flagged} of ${source.images}`),
      hovertemplate: "%{text}<extra></extra>",
      line: { color: colors.known, width: 1 },
      marker: { color: colors.known, size: 6 },
    };
    const few = data.sources.length <= 4;
    const ticks = few ? { tickvals: trace.x, ticktext: data.sources.map((source) => plain(source.name.slice(-16))), tickangle: 0, range: [0.5, data.sources.length + 0.5] } : {};
    return [[trace], { showlegend: false, xaxis: { ...ticks, title: few ? "" : "shard" }, yaxis: { ...shares, title: "flagged" } }];
  },
};

showPictures();
showPlots();
