// Unpacks plotly's script, which is carried compressed so that the file stays small, and draws the panels in place
// of their still images. Without it (an old browser, scripts off) the still images remain.
(async () => {
  const packed = document.getElementById("plotly-gz");
  if (!packed || typeof DecompressionStream === "undefined") return;
  const bytes = Uint8Array.from(atob(packed.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const code = await new Response(stream).text();
  const script = document.createElement("script");
  script.textContent = code;
  document.head.appendChild(script);
  const figures = JSON.parse(document.getElementById("panels").textContent);
  for (const [id, panels] of Object.entries(figures)) {
    const host = document.getElementById(id);
    const grid = document.createElement("div");
    grid.className = "panels";
    for (const panel of panels) {
      const div = document.createElement("div");
      div.className = "panel";
      div.tabIndex = 0;
      div.setAttribute("role", "img");
      div.setAttribute("aria-label", panel.title.replaceAll("<br>", ", ") + ": " + panel.layout.yaxis.title.text + " against "
        + panel.layout.xaxis.title.text + "; the numbers are in the tables below");
      grid.appendChild(div);
    }
    host.replaceChildren(grid);
    for (let i = 0; i < panels.length; i++) {
      await Plotly.newPlot(grid.children[i], panels[i].data, panels[i].layout,
        { responsive: true, displaylogo: false, displayModeBar: false });
    }
  }
  document.documentElement.dataset.drawn = "yes";
})();
