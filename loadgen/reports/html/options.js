// Makes of a chart (that of loadgen/plots/chart.py, with an id) the option that Apache ECharts draws. Pure: no page, no
// global but the one name that charts.js calls. A point is [x, y, low, high, label]: low and high are its error bar,
// missing or null where it has none; a point without y is a gap, at which a line breaks. Points are joined by straight
// lines or not at all. Texts come from outside: every
// label goes through a function, and tooltips are drawn, so that no text is ever read as HTML or as a template.
"use strict";
const loadgenOption = (() => {
  const SYMBOLS = ["circle", "triangle", "rect", "diamond", "roundRect", "pin", "arrow"];

  const number = (value) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "-";
    return Math.abs(value) >= 1000 ? value.toFixed(0).replace(/\B(?=(\d{3})+$)/g, ",") : String(Number(value.toPrecision(4)));
  };
  const hasBar = (point) => typeof point[2] === "number" && typeof point[3] === "number";
  const nines = (value) => `${number(100 * (1 - 10 ** -value))} %`;
  const logarithmic = (said) => said.scale === "log" || said.scale === "log2";
  // ECharts ends a logarithmic axis at powers of its base: here it ends a little beyond the values, at round numbers.
  const cut = (min, max, ticks) => ({ min, max, axisTick: { customValues: ticks }, axisLabel: { customValues: ticks } });
  const NINES = [0, Math.log10(2), 1, 2, 3, 4, 5, 6];
  const ends = (said, values) => {
    if (said.scale === "nines") return cut(0, Math.max(...values) + 0.05, NINES.filter((one) => one <= Math.max(...values)));
    const known = values.filter((value) => typeof value === "number" && value > 0);
    if (known.length === 0) return {};
    const low = Math.min(...known) / 1.08;
    const high = Math.max(...known) * 1.08;
    const few = [...new Set(known)].sort((a, b) => a - b);
    if (said.scale === "log2" && few.length <= 12) return cut(low, high, few);
    const wide = high / low > 30 ? [1] : high / low > 8 ? [1, 2, 5] : high / low > 2.5 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : [];
    let ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      ticks.push(...wide.map((digit) => Number((digit * 10 ** power).toPrecision(3))));
    }
    if (wide.length === 0) {
      const raw = (high - low) / 5;
      const step = [1, 2, 2.5, 5, 10].map((digit) => digit * 10 ** Math.floor(Math.log10(raw))).find((one) => one >= raw);
      for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) ticks.push(Number(tick.toPrecision(6)));
    }
    return cut(low, high, ticks.filter((tick) => tick >= low && tick <= high));
  };
  // Panels over one linear axis end where the others do: left to itself each would end at its own values.
  const sharedEnds = (chart, values) => {
    if (chart.panels.length < 2 || (chart.x.scale ?? "linear") !== "linear") return {};
    const marks = chart.panels.flatMap((panel) => [...(panel.bands ?? []).flatMap((one) => [one.low, one.high]), ...(panel.levels ?? []).map((one) => one.x)]);
    const known = [...values, ...marks].filter((value) => typeof value === "number");
    const low = chart.x.low ?? (chart.x.zero ? 0 : Math.min(...known));
    const high = Math.max(...known);
    const raw = (high - low) / 8;
    if (!(raw > 0)) return {};
    const step = [1, 2, 5, 10].map((digit) => digit * 10 ** Math.floor(Math.log10(raw))).find((one) => one >= raw);
    const round = (value) => Number((value * step).toPrecision(10));
    return { min: chart.x.low ?? round(Math.floor(low / step)), max: chart.x.high ?? round(Math.ceil(high / step)) };
  };
  const axis = (said, look, more) => ({
    type: logarithmic(said) ? "log" : said.scale === "names" ? "category" : "value",
    logBase: said.scale === "log2" ? 2 : 10,
    name: said.name,
    nameLocation: "middle",
    nameTextStyle: { color: look.soft },
    scale: true,
    min: said.low ?? (said.zero ? 0 : undefined),
    max: said.high ?? undefined,
    minorTick: { show: false },
    data: said.names ?? undefined,
    axisLabel: {
      color: look.soft,
      hideOverlap: true,
      formatter: said.scale === "nines" ? nines : (value) => (said.names ? String(value) : number(value)),
    },
    axisLine: { lineStyle: { color: look.line } },
    splitLine: { lineStyle: { color: look.line, opacity: 0.6 } },
    ...more,
  });
  const cutAxis = (said, look, values, more) => {
    const made = axis(said, look, more);
    if (!logarithmic(said) && said.scale !== "nines") return made;
    const found = ends(said, values);
    return { ...made, ...found, axisLabel: { ...made.axisLabel, ...found.axisLabel } };
  };
  // The end of a bar that reaches below zero has no place on a logarithmic axis: it is drawn to the axis' own end.
  const lowest = (panel) => (logarithmic(panel.y) ? (ends(panel.y, heights(panel)).min ?? -Infinity) : -Infinity);
  const heights = (panel) => [
    ...panel.series.flatMap((one) => one.points.flatMap((point) => [point[1], point[2], point[3]])),
    ...(panel.levels ?? []).map((one) => one.y),
  ];
  const word = (said, value) => (said.scale === "nines" ? nines(value) : number(value));

  const errorBars = (series, colour, panel, at, least) => ({
    type: "custom",
    name: series.name,
    id: `interval ${at}`,
    xAxisIndex: panel,
    yAxisIndex: panel,
    silent: true,
    clip: true,
    itemStyle: { color: colour },
    data: series.points.filter(hasBar).map((point) => [point[0], Math.max(point[2], least), point[3]]),
    encode: { x: 0, y: [1, 2] },
    renderItem: (_, api) => {
      const [x, low] = api.coord([api.value(0), api.value(1)]);
      const high = api.coord([api.value(0), api.value(2)])[1];
      const line = (x1, y1, x2, y2) => ({
        type: "line",
        shape: { x1, y1, x2, y2 },
        style: { stroke: colour, lineWidth: 1.5 },
      });
      return { type: "group", children: [line(x, low, x, high), line(x - 4, low, x + 4, low), line(x - 4, high, x + 4, high)] };
    },
  });

  // A line down all panels is named in the first one alone.
  const levels = (panel, look, named) => ({
    silent: true,
    symbol: "none",
    lineStyle: { color: look.bad, type: "dashed" },
    label: { color: look.bad, position: "insideStartTop", formatter: (one) => (named || one.data.yAxis !== undefined ? one.name : "") },
    data: (panel.levels ?? []).map((one) => {
      if (one.x === undefined) return { yAxis: one.y, name: one.name };
      // Inside a panel with a band the name of a line down would be written over by the band's: it stands above.
      return { xAxis: one.x, name: one.name, ...(panel.bands?.length ? { label: { position: "end", distance: 2 } } : {}) };
    }),
  });
  const bands = (panel, look, named) => ({
    silent: true,
    itemStyle: { color: look.soft, opacity: 0.15 },
    label: { show: named, color: look.soft, position: "insideTop", formatter: (one) => one.name },
    data: (panel.bands ?? []).map((one) => [{ xAxis: one.low, name: one.name }, { xAxis: one.high }]),
  });

  // What stands alone between gaps is marked even where the points of a line are not; what only draws a step up to a
  // gap never is.
  const drawnPoints = (series, many) => {
    const lone = new Set(series.lone ?? []);
    if (series.lone === undefined && !series.points.some((point) => point.length < 2)) return series.points;
    const ends = (at) => series.step && series.points[at + 1]?.length < 2;
    return series.points.map((point, at) => {
      if (point.length < 2) return { value: [point[0], null] };
      if (lone.has(at)) return { value: point, symbolSize: 6 };
      return many || series.bare || ends(at) ? { value: point, symbol: "none" } : point;
    });
  };

  const drawnSeries = (series, place, look) => {
    const colour = look.colours[(series.colour ?? 0) % look.colours.length];
    const many = series.points.length > 60;
    return {
      type: series.joined ? "line" : "scatter",
      name: series.name,
      xAxisIndex: place,
      yAxisIndex: place,
      step: series.step ? "end" : false,
      smooth: false,
      symbol: SYMBOLS[(series.colour ?? 0) % SYMBOLS.length],
      symbolSize: series.joined ? (many ? 2 : 8) : many ? 4 : 9,
      showSymbol: (!many && !series.bare) || series.lone !== undefined,
      color: colour,
      itemStyle: { color: colour },
      lineStyle: { color: colour, width: 1.75, type: series.dashed ? "dashed" : "solid" },
      label: {
        show: series.points.some((point) => point[4]),
        position: "right",
        color: look.ink,
        formatter: (one) => String(one.value[4] ?? ""),
      },
      labelLayout: { hideOverlap: true },
      data: drawnPoints(series, many),
      encode: { x: 0, y: 1 },
    };
  };

  const linesOption = (chart, look, width, height) => {
    const count = chart.panels.length;
    const top = chart.legend ? 40 : 12;
    const series = [];
    chart.panels.forEach((panel, place) => {
      panel.series.forEach((one, at) => {
        const drawn = drawnSeries(one, place, look);
        if (at === 0) Object.assign(drawn, { markLine: levels(panel, look, place === 0), markArea: bands(panel, look, place === 0) });
        series.push(drawn);
        if (one.points.some(hasBar)) series.push(errorBars(one, drawn.color, place, series.length, lowest(panel)));
      });
    });
    const left = width < 480 ? 66 : 72; // room for 12,345 and a name; the same in all panels, so that they lie in line
    const places = chart.panels.flatMap((panel) => panel.series.flatMap((one) => one.points.map((point) => point[0])));
    const first = chart.legend ? 36 : 12; // px; what is left above the x axis is shared by the panels
    const share = (height - first - 52) / count;
    return {
      legend: { show: chart.legend, type: "scroll", top: 0, textStyle: { color: look.ink }, inactiveColor: look.soft, formatter: (name) => name },
      grid: chart.panels.map((_, place) =>
        count === 1 ? { left, right: 36, top, bottom: 48 } : { left, right: 36, top: first + place * share, height: share - 14, outerBoundsMode: "none" },
      ),
      xAxis: chart.panels.map((_, place) =>
        cutAxis(chart.x, look, places, { gridIndex: place, nameGap: 28, ...sharedEnds(chart, places), ...(place < count - 1 ? { name: "", axisLabel: { show: false } } : {}) }),
      ),
      yAxis: chart.panels.map((panel, place) =>
        cutAxis(panel.y, look, heights(panel), { gridIndex: place, nameGap: left - 16, splitNumber: count > 1 ? 2 : 5 }),
      ),
      series,
      tooltip: tooltip(look, (one) => {
        const panel = chart.panels[one.seriesIndex === undefined ? 0 : series[one.seriesIndex].xAxisIndex];
        const [x, y, low, high, label] = one.value;
        const range = !hasBar(one.value) ? "" : ` [${number(low)}, ${number(high)}]`;
        return `${one.seriesName}\n${chart.x.name}: ${word(chart.x, x)}\n${panel.y.name}: ${word(panel.y, y)}${range}${label ? `\n${label}` : ""}`;
      }),
    };
  };

  const heatOption = (chart, look, width) => ({
    grid: { left: width < 480 ? 58 : 72, right: 36, top: 12, bottom: 88 },
    xAxis: axis(chart.x, look, { nameGap: 26, splitArea: { show: false } }),
    yAxis: axis(chart.y, look, { nameGap: width < 480 ? 42 : 56 }),
    visualMap: {
      min: 1,
      max: Math.max(2, ...chart.cells.map((cell) => cell[2])),
      orient: "horizontal",
      left: "center",
      bottom: 0,
      itemHeight: 140,
      text: [`${number(Math.max(1, ...chart.cells.map((cell) => cell[2])))} ${chart.count}`, "1"],
      textStyle: { color: look.soft },
      inRange: { color: look.heat },
    },
    series: [{ type: "heatmap", name: chart.count, data: chart.cells, progressive: 0 }],
    tooltip: tooltip(look, (one) => `${chart.x.name}: ${chart.x.names[one.data[0]]}\n${chart.y.name}: ${chart.y.names[one.data[1]]}\n${number(one.data[2])} ${chart.count}`),
  });

  const barsOption = (chart, look, width) => ({
    legend: { show: true, top: 0, textStyle: { color: look.ink }, inactiveColor: look.soft, formatter: (name) => name },
    grid: { left: width < 480 ? 44 : 56, right: 36, top: 34, bottom: look.printing ? 48 : 84 },
    xAxis: axis(chart.x, look, { nameGap: 28 }),
    dataZoom: look.printing ? [] : [{ type: "slider", filterMode: "weakFilter", height: 22, bottom: 6, showDataShadow: false, textStyle: { color: look.soft } }],
    yAxis: axis(chart.y, look, { inverse: true, minInterval: 1, nameGap: 36, splitLine: { show: false } }),
    series: chart.phases.map((phase, at) => {
      const colour = phase.bad ? look.bad : look.colours[[6, 4, 0][at] ?? at];
      return {
        type: "custom",
        name: phase.name,
        color: colour,
        itemStyle: { color: colour },
        clip: true,
        data: phase.spans,
        encode: { x: [1, 2], y: 0 },
        renderItem: (_, api) => {
          const [x, y] = api.coord([api.value(1), api.value(0)]);
          const end = api.coord([api.value(2), api.value(0)])[0];
          const height = Math.max(1, Math.min(10, api.size([0, 1])[1] * 0.8));
          return { type: "rect", shape: { x, y: y - height / 2, width: Math.max(1, end - x), height }, style: { fill: colour } };
        },
      };
    }),
    tooltip: tooltip(look, (one) => `${one.seriesName}, ${chart.y.name} ${one.data[0]}\n${number(one.data[1])} s to ${number(one.data[2])} s`),
  });

  const tooltip = (look, formatter) => ({
    trigger: "item",
    renderMode: "richText",
    confine: true,
    backgroundColor: look.paper,
    borderColor: look.line,
    textStyle: { color: look.ink, fontSize: 12 },
    // ECharts reads {style|text} in a tooltip: a space of no width keeps the brace of a name from being one of those.
    formatter: (one) => formatter(one).replaceAll("{", "{\u200b"),
  });

  const OPTIONS = { lines: linesOption, heat: heatOption, bars: barsOption };
  return (chart, look, width, height) => ({
    animation: false,
    backgroundColor: "transparent",
    textStyle: { fontFamily: "system-ui, sans-serif" },
    ...OPTIONS[chart.kind](chart, look, width, height),
  });
})();
