"use strict";

// What the template put into the page: names, histograms and curves, and nothing that is markup.
const data = JSON.parse(document.getElementById("data").textContent);
const select = (root, name) => root.querySelector(`[name="${name}"]`);

// What draws the elements of class `plot`: PLOTS, of the page's own script, has a function for each kind.
const choices = document.getElementById("choices");

// Plotly reads a few HTML tags in names; here every name is text.
function plain(text) {
  const short = text.length > 40 ? `${text.slice(0, 39)}…` : text;
  return short.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

// The type of an axis; a logarithmic one has its decades marked.
const scale = (log) => (log ? { type: "log", dtick: 1, tickformat: "~g" } : { type: "linear" });

function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return {
    ink: of("--ink"),
    soft: of("--soft"),
    line: of("--line"),
    panel: of("--panel"),
    known: of("--known"),
    series: [1, 2, 3, 4, 5].map((number) => of(`--series-${number}`)),
  };
}

const LEGEND_COLUMN = 150; // pixels, about

function draw(element) {
  const colors = theme();
  const [traces, own] = PLOTS[element.dataset.plot](colors);
  const axis = { gridcolor: colors.line, zeroline: false, linecolor: colors.line, automargin: true, fixedrange: coarse.matches };
  const title = (of) => ({ text: of.title, font: { size: 13 }, standoff: 6 });
  // On a phone the legend takes a row for every other name: the plot keeps its height, the page gets longer.
  const rows = own.showlegend === false ? 0 : Math.ceil(traces.length / Math.max(1, Math.floor(element.clientWidth / LEGEND_COLUMN)));
  const layout = {
    height: 300 + 20 * rows,
    ...(document.documentElement.classList.contains("paper") && { width: element.clientWidth }), // else the screen's
    margin: { l: 52, r: 12, t: 8, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colors.ink, family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: colors.panel, font: { color: colors.ink } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 12 } },
    showlegend: true,
    dragmode: coarse.matches ? false : "zoom", // a finger scrolls the page
    ...own,
    xaxis: { ...axis, ...own.xaxis, title: title(own.xaxis) },
    yaxis: { ...axis, ...own.yaxis, title: title(own.yaxis) },
  };
  const config = { responsive: true, displayModeBar: false }; // it would lie over the legend; to zoom, drag; to go back, double-click
  return Plotly.react(element, traces, layout, config);
}

const coarse = matchMedia("(pointer: coarse)");
const plots = document.querySelectorAll(".plot");
const drawAll = () => Promise.all([...plots].map(draw));

function showPlots() {
  choices.hidden = false;
  choices.addEventListener("input", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  // Paper is white whatever the screen is.
  for (const [event, paper] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      document.documentElement.classList.toggle("paper", paper);
      drawAll();
      if (!paper) plots.forEach((element) => Plotly.Plots.resize(element));
    });
  }
  drawAll().then(() => document.documentElement.classList.add("drawn"));
}
