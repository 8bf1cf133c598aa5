// ------------------------------------------------------------------------------------------------- plots

const chosen = () => data.scores.find((score) => score.name === select(choices, "score").value);

// A line over the whole plane, at the value of one run or from corner to corner.
function rule(x, y, dash, colors) {
  return { type: "scatter", mode: "lines", x, y, hoverinfo: "skip", line: { color: colors.ink, dash, width: 1 } };
}

const PLOTS = {
  plane(colors) {
    const { name, plane, thresholds } = chosen();
    const { a, b, images } = plane;
    const ends = (axis) => [axis.edges[0], axis.edges[axis.edges.length - 1]];
    const heat = {
      type: "heatmap",
      x: a.edges,
      y: b.edges,
      z: images.map((row) => row.map((count) => (count ? Math.log10(count) : null))), // few and many both show
      customdata: images,
      hovertemplate: "A %{x:.4g}, B %{y:.4g}: %{customdata:,} images<extra></extra>",
      colorscale: [[0, `${colors.known}30`], [1, colors.known]],
      hoverongaps: false,
      showscale: false,
    };
    const traces = [heat];
    const low = Math.max(ends(a)[0], ends(b)[0]);
    const high = Math.min(ends(a)[1], ends(b)[1]);
    if (low < high && a.log === b.log) traces.push(rule([low, high], [low, high], "dash", colors));
    if (thresholds) {
      const inside = (value, axis) => value >= ends(axis)[0] && value <= ends(axis)[1];
      if (inside(thresholds[0], a)) traces.push(rule([thresholds[0], thresholds[0]], ends(b), "dot", colors));
      if (inside(thresholds[1], b)) traces.push(rule(ends(a), [thresholds[1], thresholds[1]], "dot", colors));
    }
    const axis = (run, of) => ({
      ...scale(of.log),
      title: `${plain(name)} in ${run}${of.log ? " (log scale)" : ""}`,
    });
    return [traces, { showlegend: false, height: 430, xaxis: axis("A", a), yaxis: axis("B", b) }];
  },
};

showPlots();
