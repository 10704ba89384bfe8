// Puts the charts of the JSON block "data" into their places: in the light or the dark, on a screen of any width or on
// paper. The values are those of the tables.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const byId = new Map(charts.map((chart) => [chart.id, chart]));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const LIGHT = ["#0072b2", "#d55e00", "#008a62", "#b0559c", "#9a6b00", "#3f7fa8", "#6b6b6b"];
  const DARK = ["#5ab4e8", "#f0903c", "#35c795", "#e59ac4", "#e8c547", "#9fd0f5", "#b5b5b5"];
  let printing = false;

  const theme = () => {
    const night = dark.matches && !printing;
    return {
      printing,
      colours: night ? DARK : LIGHT,
      ink: night ? "#e6e9ec" : "#1c2024",
      soft: night ? "#a3adb8" : "#5b6570",
      line: night ? "#363d45" : "#d5dae0",
      paper: night ? "#14171a" : "#ffffff",
      heat: night ? ["#1e2328", "#2b6a94", "#f0c060"] : ["#e9f1f7", "#3f7fa8", "#7a2d00"],
      bad: night ? "#ff9288" : "#a3261d",
    };
  };

  // What is printed is drawn before the paper's own layout: these are the heights of the print rules in page.css.
  const paperSize = (chart) => ({ width: 680, height: panels(chart) > 2 ? panels(chart) * 100 + 90 : 270 });
  const panels = (chart) => chart.panels?.length ?? 1;
  const draw = (place) => {
    const chart = byId.get(place.dataset.chart);
    if (!chart || place.clientWidth === 0) return;
    echarts.getInstanceByDom(place)?.dispose();
    place.style.height = panels(chart) > 2 ? `${panels(chart) * (printing ? 100 : 140) + 90}px` : "";
    const size = printing ? paperSize(chart) : {};
    const look = theme();
    const option = loadgenOption(chart, look, size.width ?? place.clientWidth, size.height ?? place.clientHeight);
    echarts.init(place, null, { renderer: "svg", ...size }).setOption(option);
  };
  const places = () => [...document.querySelectorAll("[data-chart]")];
  const drawAll = () => {
    for (const place of places()) {
      place.style.display = "block";
      draw(place);
    }
  };

  const which = document.getElementById("which");
  const choose = () => {
    for (const part of document.querySelectorAll("section.inside")) part.hidden = which !== null && part.id !== which.value;
  };
  document.documentElement.classList.add("scripted");
  which?.addEventListener("change", () => {
    choose();
    drawAll();
  });
  dark.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => {
    printing = true;
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    drawAll();
  });
  // A place has no width while it is hidden, and none at all before a window has its size: it is drawn when it gets one.
  const sizes = new ResizeObserver((changed) => {
    if (printing) return;
    for (const { target } of changed) {
      const chart = echarts.getInstanceByDom(target);
      if (!chart) draw(target);
      else if (target.clientWidth > 0 && chart.getWidth() !== target.clientWidth) chart.resize();
    }
  });
  choose();
  drawAll();
  for (const place of places()) sizes.observe(place);
})();
