// Answers a reader's own question from the table in the page, by the rules and in the sentences of `equigrid equiv`.
// Between two rows of the table amounts are interpolated in logarithms; nothing is fitted here.
window.equigrid = window.equigrid || {};
equigrid.ask = (() => {
  const count = (value) => Math.round(value).toLocaleString("en-US");
  const money = (value) => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  // Two significant digits, as Python's "{:.2g}".
  const short = (value) => {
    const text = value.toPrecision(2);
    if (text.includes("e")) return text.replace(/e([+-])(\d)$/, "e$10$2");
    return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  };
  const images = (value) => {
    if (value === null) return "∞";
    const digits = Math.max(Math.floor(Math.log10(Math.max(value, 1))) - 1, 0);
    const unit = 10 ** digits;
    return (Math.round(value / unit) * unit).toLocaleString("en-US", { maximumFractionDigits: 0 });
  };
  const fill = (template, words) => template.replace(/\{(\w+)\}/g, (_, name) => words[name]);

  // The row of the table for nReal images: quantiles in images, null without an end.
  function row(base, nReal) {
    const at = base.n_real, last = at.length - 1;
    if (nReal < at[0] || nReal > at[last]) return null;
    const k = at.findIndex((n) => n >= nReal * (1 - 1e-9));
    const share = k === 0 ? 1 : (Math.log(nReal) - Math.log(at[k - 1])) / (Math.log(at[k]) - Math.log(at[k - 1]));
    const exact = share > 1 - 1e-9;
    const between = (name, scale) => {
      const high = base[name][k], low = base[name][Math.max(k - 1, 0)];
      if (exact) return high;
      if (high === null || low === null) return null;
      if (!scale) return low + share * (high - low);
      return scale * Math.expm1((1 - share) * Math.log1p(low / scale) + share * Math.log1p(high / scale));
    };
    return {
      low: between("low", base.n_base), middle: between("middle", base.n_base), high: between("high", base.n_base),
      never: between("never"), noRise: between("no_rise"),
    };
  }

  // Which case of answer it is, with its numbers.
  function found(table, base, nReal) {
    const rules = table.rules;
    if (base.reasons) return { kind: "undetermined", reasons: base.reasons };
    const at = row(base, nReal);
    if (at === null) {
      const [first, last] = [base.n_real[0], base.n_real[base.n_real.length - 1]];
      return { kind: "undetermined", reasons: `the table in this page goes from ${count(first)} to ${count(last)} real images; equigrid equiv goes further` };
    }
    const [smallest, largest] = base.measured;
    let { low, middle, high } = at;
    const few = middle !== null && middle < smallest;
    if (few) { low = 0; high = high === null ? null : Math.max(high, smallest); }
    const open = (why, words) => ({ kind: "undetermined", reasons: fill(table.why[why], words || {}) });
    if (at.noRise > rules.no_rise) return open("no rise", { share: `${Math.round(100 * at.noRise)}%` });
    if (at.never >= rules.sure) return { kind: "never", low, high: null, value: null };
    if (high === null) return low >= smallest ? { kind: "at least", low, high, value: middle } : open("anything");
    if (few) return { kind: "fewer", low, high, value: middle };
    const span = high / Math.max(low, 1e-9 * base.n_base);
    if (span > rules.widest ** 2) return open("wide", { span: count(span) });
    const beyond = middle > largest || nReal > base.most_real * (1 + 1e-6);
    return { kind: "matched", low, high, value: middle, factor: Math.sqrt(high / low), beyond };
  }

  function sentence(table, curve, base, nReal, amount) {
    const parts = table.parts;
    let name = amount.kind;
    if (name === "at least" && amount.low < nReal) name = "at least, few";
    if (name === "matched" || name === "fewer") name = base.case;
    const words = { n_base: count(base.n_base), name: curve.generator, real: fill(parts.real, { n_real: count(nReal) }),
      reasons: amount.reasons || "", copies: base.copies, low: "", times: "", many: "", known: "" };
    if (amount.low !== undefined && amount.low !== null) {
      words.low = images(amount.low);
      words.times = short(amount.low / nReal);
    }
    if (amount.kind === "fewer") words.many = fill(parts.fewer, { high: images(amount.high) });
    if (amount.kind === "matched") {
      words.many = fill(parts.matched, { value: images(amount.value) });
      words.known = fill(parts.known, { factor: short(amount.factor), low: images(amount.low), high: images(amount.high),
        beyond: amount.beyond ? parts.beyond : "" });
    }
    const [kind, template] = table.sentences[name];
    return { kind, text: fill(template, words) };
  }

  // As `Costs.lines` of equigrid.analysis.answer.practical.
  function costs(amount, nReal, prices) {
    const lines = [], known = amount.kind !== "undetermined", matched = amount.kind === "matched";
    if (prices) {
      const of = (n) => (n === null ? null : prices.generator + n * prices.syn);
      const real = nReal * prices.real, syn = matched ? of(amount.value) : null;
      const low = known ? of(amount.low) : null, high = known && amount.kind !== "at least" && amount.kind !== "never" ? of(amount.high) : null;
      const end = (value) => (value === 0 ? "nothing" : value === null ? "no limit" : money(value));
      let cheaper = "which is cheaper is open";
      if (high !== null && high < real) cheaper = "synthetic is cheaper";
      else if (low !== null && low > real) cheaper = "real is cheaper";
      else if (syn !== null) cheaper = `${syn < real ? "synthetic" : "real"} is cheaper at the best estimate; the interval does not exclude the other`;
      const fixed = prices.generator ? `, of which ${money(prices.generator)} for the generator` : "";
      lines.push(`cost: real ${money(real)}; synthetic ${syn === null ? "" : `${money(syn)}, `}${end(low)} to ${end(high)}${fixed}: ${cheaper}`);
    }
    if (matched && amount.value) {
      const beside = prices && prices.generator ? " (the generator's cost aside)" : "";
      lines.push(`synthetic images are the cheaper ones below ${short(nReal / amount.value)} of a real image's price${beside}`);
    }
    return lines;
  }

  function answer(table, curve, question) {
    if (curve.nothing) return { kind: "undetermined", text: curve.nothing, lines: [] };
    const { nBase, nReal, prices } = question;
    const base = curve.bases.find((one) => Math.abs(one.n_base - nBase) <= table.rules.same_base * nBase);
    if (!base) {
      const listed = curve.bases.map((one) => count(one.n_base)).join(", ");
      const near = [curve.bases.filter((one) => one.n_base < nBase).slice(-1)[0], curve.bases.find((one) => one.n_base > nBase)];
      const lines = near.filter(Boolean).map((one) => {
        const scaled = (nReal / nBase) * one.n_base;
        return `Nearest measured base, the same ${short(nReal / nBase)} times the base: ${sentence(table, curve, one, scaled, found(table, one, scaled)).text}`;
      });
      return { kind: "undetermined", text: fill(table.parts.unmeasured, { n_base: count(nBase), listed }), lines };
    }
    const amount = found(table, base, nReal);
    const lines = costs(amount, nReal, prices);
    if (base.most_real !== undefined && nReal > base.most_real * (1 + 1e-6)) {
      lines.push("so many real images were not measured at this base: the real curve is extrapolated");
    }
    const all = base.n_base + nReal;
    if (all > curve.dataset_size * (1 + table.rules.same_base)) {
      lines.push(`${count(all)} real images, the dataset has ${count(curve.dataset_size)}`);
    }
    return { ...sentence(table, curve, base, nReal, amount), lines };
  }

  const number = (field) => {
    const text = field.value.trim().replaceAll(",", "");
    return text === "" ? null : Number(text);
  };
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  function read(form) {
    const f = form.elements, nBase = number(f.n_base), nReal = number(f.n_real);
    for (const [name, value] of [["Real images that you have", nBase], ["Real images that you could add", nReal]]) {
      if (!(value >= 1 && value <= 1e12)) return { wrong: `${name}: write a number of images from 1 up.` };
    }
    const [real, syn, generator] = [number(f.cost_real), number(f.cost_syn), number(f.cost_generator)];
    for (const price of [real, syn, generator]) {
      if (price !== null && !(price >= 0 && price <= 1e15)) return { wrong: "A price is a number from 0 up." };
    }
    const prices = real !== null && syn !== null ? { real, syn, generator: generator || 0 } : null;
    const missing = !prices && (real !== null || syn !== null || generator !== null)
      ? "Give the price of a real and of a synthetic image, both, to compare costs." : "";
    return { nBase, nReal, prices, missing };
  }

  function show(form, out, table) {
    const question = read(form), parts = [];
    if (question.wrong) parts.push(element("p", question.wrong, "warn"));
    else {
      if (question.missing) parts.push(element("p", question.missing, "warn"));
      for (const curve of table.curves) {
        const told = answer(table, curve, question), box = element("article", "", `answer ${told.kind.replaceAll(" ", "-")}`);
        box.append(element("h3", curve.name), element("p", told.text, "verdict"));
        for (const line of told.lines) box.append(element("p", line, "line"));
        parts.push(box);
      }
    }
    out.replaceChildren(...parts);
  }

  // The slider goes over the table's rows, in equal ratios.
  function start(table) {
    const form = document.getElementById("question"), out = document.getElementById("answers");
    if (!form || !out) return;
    const slider = form.elements.slider, field = form.elements.n_real;
    const ends = () => {
      const bases = table.curves.flatMap((curve) => curve.bases), nBase = number(form.elements.n_base);
      const own = bases.find((one) => one.n_real && Math.abs(one.n_base - nBase) <= table.rules.same_base * nBase)
        || bases.find((one) => one.n_real);
      return own ? [own.n_real[0], own.n_real[own.n_real.length - 1]] : [1, 1000];
    };
    const follow = () => {
      const [first, last] = ends(), share = Math.log(number(field) / first) / Math.log(last / first);
      if (Number.isFinite(share)) slider.value = Math.round(1000 * Math.min(Math.max(share, 0), 1));
      slider.setAttribute("aria-valuetext", `${field.value} real images`);
    };
    slider.oninput = () => {
      const [first, last] = ends();
      field.value = Math.round(first * (last / first) ** (slider.value / 1000));
      slider.setAttribute("aria-valuetext", `${field.value} real images`);
      show(form, out, table);
    };
    form.oninput = (event) => {
      if (event.target === slider) return;
      follow();
      show(form, out, table);
    };
    form.onsubmit = (event) => event.preventDefault();
    follow();
    show(form, out, table);
  }
  return { start };
})();
