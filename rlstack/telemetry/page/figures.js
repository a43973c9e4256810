// Unpacks Plotly and draws every figure in the colours of the page.
const scheme = matchMedia("(prefers-color-scheme: dark)");

function template() {
  const [text, line] = scheme.matches ? ["#e6e6e6", "#3a3d41"] : ["#1b1b1b", "#dddddd"];
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
  return {
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text, size: 12, family: "system-ui, sans-serif" },
      colorway: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888"],
      margin: { l: 56, r: 16, t: 40, b: 44 },
      title: { x: 0, xref: "paper", xanchor: "left", font: { size: 14 } },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", traceorder: "normal" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "#999999", activecolor: text },
      hoverlabel: { namelength: -1 },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

async function loadPlotly() {
  const script = document.createElement("script");
  script.textContent = await unpacked(document.getElementById("plotly"));
  document.head.append(script);
}

// What is clear on white is as clear on black in these shades.
const LIGHTER = {
  "#0072B2": "#5B9BF5", "#D55E00": "#F2914A", "#009E73": "#3CC79C", "#CC79A7": "#E3A3C6", "#56B4E9": "#9ADCFF",
};

function draw(element, figure) {
  const coloured = figure.replace(/#[0-9A-F]{6}/g, (colour) => (scheme.matches && LIGHTER[colour]) || colour);
  const { data, layout } = JSON.parse(coloured);
  // Named one by one: Plotly's own choice has a button that uploads the figure.
  const buttons = [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]];
  const config = { responsive: true, displaylogo: false, modeBarButtons: buttons };
  return Plotly.react(element, data, { ...layout, template: template() }, config);
}

async function drawFigures() {
  const plots = [...document.querySelectorAll(".plot")];
  const figures = plots.map((plot) => plot.querySelector("script").textContent);
  const drawAll = () => Promise.all(plots.map((plot, i) => draw(plot, figures[i])));
  try {
    await loadPlotly();
    await drawAll();
  } catch (error) {
    for (const plot of plots) plot.append(`The figure could not be drawn: ${error}`);
    return;
  }
  scheme.addEventListener("change", () => drawAll);
  document.body.dataset.drawn = plots.length;
}

drawFigures();
