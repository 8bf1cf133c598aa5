// ------------------------------------------------------------------------------------------------- plots

const nights = data.nights;
const names = nights.map((night) => night.night);
const percents = (values) => values.map((value) => (value === null ? null : 100 * value));

function series(name, values, color, more = {}) {
  return { type: "scatter", mode: "lines+markers", name, x: names, y: values, line: { color, width: 2 }, marker: { size: 7, color }, connectgaps: false, ...more };
}

// A line over all nights.
function level(name, value, dash, colors) {
  return { type: "scatter", mode: "lines", name, x: names, y: names.map(() => value), hoverinfo: "skip", line: { color: colors.ink, dash, width: 1 } };
}

function gate(metric, factor, colors) {
  return metric in data.bounds ? [level("gate", factor * data.bounds[metric], "dot", colors)] : [];
}

const nightAxis = { title: "night", type: "category", nticks: 8 };
const fromZero = (title) => ({ title, rangemode: "tozero" });

const PLOTS = {
  share(colors) {
    const shares = percents(nights.map((night) => night.flagged_share));
    const ends = (place) => nights.map((night, at) => (night.interval ? Math.abs(100 * night.interval[place] - shares[at]) : null));
    const flagged = series("flagged", shares, colors.known, {
      error_y: { type: "data", symmetric: false, array: ends(1), arrayminus: ends(0), color: colors.known, thickness: 1.2, width: 3 },
      marker: { size: 8, color: nights.map((night) => (night.failed ? colors.series[0] : colors.known)), symbol: nights.map((night) => (night.failed ? "x" : "circle")) },
      hovertemplate: "%{x}: %{y:.2f} %<extra></extra>",
    });
    const traces = [flagged, level("baseline", 100 * data.baseline_share, "dash", colors), ...gate("flagged_share", 100, colors)];
    return [traces, { xaxis: nightAxis, yaxis: fromZero("flagged, %") }];
  },
  // A night alone: a row for each figure, on a scale of its own.
  figures(colors) {
    const rows = [...data.figures].reverse(); // the first on top
    // Without baseline or gate: from 0 to 1, where distances lie that are small.
    const beside = (row) => (row.baseline === null && row.bound === null ? 0.8 : Math.max(row.baseline ?? 0, row.bound ?? 0));
    const scales = rows.map((row) => 1.25 * Math.max(row.value, beside(row)) || 1);
    const at = (key) => rows.map((row, place) => (row[key] === null ? null : row[key] / scales[place]));
    const y = rows.map((row) => row.name);
    const colour = rows.map((row) => (row.exceeded ? colors.series[0] : colors.known));
    const mark = (name, key, symbol, size) => ({ type: "scatter", mode: "markers", name, x: at(key), y, hoverinfo: "skip", marker: { symbol, size, color: colors.ink, line: { color: colors.ink, width: 2 } } });
    const traces = [{ type: "bar", orientation: "h", name: "this night", x: at("value"), y, width: 0.3, marker: { color: colour }, customdata: rows.map((row) => row.said), hovertemplate: "%{y}: %{customdata}<extra></extra>" }];
    for (const [name, key, symbol, size] of [["baseline", "baseline", "circle-open", 10], ["gate", "bound", "line-ns-open", 20]]) {
      if (rows.some((row) => row[key] !== null)) traces.push(mark(name, key, symbol, size));
    }
    // Above its bar: on a phone there is no room beside it. What is said is numbers and words of ours.
    const annotations = rows.map((row) => ({ x: 0, y: row.name, xanchor: "left", yshift: 22, showarrow: false, text: `<b>${row.name}</b> ${row.said.replace(/</g, "&lt;")}`, font: { size: 11 } }));
    return [traces, { height: 80 + 58 * rows.length, margin: { l: 8, r: 8, t: 8, b: 8 }, annotations, xaxis: { title: "", range: [0, 1], visible: false }, yaxis: { title: "", visible: false, range: [-0.5, rows.length - 0.3] } }];
  },
  drift(colors) {
    const of = (key) => nights.map((night) => night[key]);
    const traces = [
      series("PSI", of("psi"), colors.series[0]),
      series("KS", of("ks"), colors.series[1]),
      series("PSI of classes", of("prediction_psi"), colors.series[2]),
      ...gate("psi", 1, colors),
    ];
    return [traces, { xaxis: nightAxis, yaxis: fromZero("distance") }];
  },
  volume(colors) {
    const bars = { type: "bar", x: names, y: nights.map((night) => night.images), marker: { color: colors.known }, hovertemplate: "%{x}: %{y:,}<extra></extra>" };
    return [[bars], { showlegend: false, xaxis: nightAxis, yaxis: fromZero("images") }];
  },
  quarantine(colors) {
    const bars = { type: "bar", name: "not scored", x: names, y: percents(nights.map((night) => night.quarantined)), marker: { color: colors.series[0] }, hovertemplate: "%{x}: %{y:.3g} %<extra></extra>" };
    const lines = gate("quarantined", 100, colors);
    return [[bars, ...lines], { showlegend: lines.length > 0, xaxis: nightAxis, yaxis: fromZero("rows, %") }];
  },
  distribution(colors) {
    const { log, edges, shares } = data.histogram;
    const of = (name, color) => ({
      type: "scatter",
      mode: "lines",
      name,
      x: edges,
      y: percents([...shares[name], shares[name][shares[name].length - 1]]),
      line: { shape: "hv", color, width: 2 },
      hovertemplate: "%{x:.4g}: %{y:.2f} %<extra></extra>",
    });
    const traces = [of("baseline", colors.known), of("this night", colors.series[0])];
    const most = Math.max(...traces.flatMap((trace) => trace.y));
    if (data.threshold >= edges[0] && data.threshold <= edges[edges.length - 1]) {
      traces.push({ type: "scatter", mode: "lines", name: "threshold", x: [data.threshold, data.threshold], y: [0, most], hoverinfo: "skip", line: { color: colors.ink, dash: "dot", width: 1 } });
    }
    const title = `${plain(data.score)}${log ? " (log scale)" : ""}`;
    return [traces, { xaxis: { title, type: log ? "log" : "linear", exponentformat: "power" }, yaxis: fromZero("images, %") }];
  },
  predictions(colors) {
    const { names: classes, baseline, night } = data.predictions;
    const of = (name, values, color) => ({ type: "bar", name, x: classes.map(plain), y: percents(values), marker: { color }, hovertemplate: "%{x}: %{y:.2f} %<extra></extra>" });
    return [[of("baseline", baseline, colors.known), of("this night", night, colors.series[0])], { barmode: "group", xaxis: { title: "predicted class", type: "category", nticks: 24 }, yaxis: fromZero("images, %") }];
  },
};

showPlots();
