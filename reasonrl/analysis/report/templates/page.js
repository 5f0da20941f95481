"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  // Text of models reaches the page through textContent alone.
  const make = (tag, text = "", name = "") => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (name) element.className = name;
    return element;
  };

  // Charts: read values with the pointer or the arrow keys.
  const WIDTH = 360;
  for (const chart of document.querySelectorAll(".chart")) {
    const lines = JSON.parse(chart.dataset.points);
    const places = [...new Map(lines.flatMap((line) => line.p.map((p) => [p[1], p[0]])))].sort((a, b) => a[0] - b[0]);
    const [svg, cursor, output] = ["svg", ".cursor", "output"].map((name) => chart.querySelector(name));
    let at = -1;
    const show = (index) => {
      at = Math.max(0, Math.min(places.length - 1, index));
      if (!places.length) return;
      const [step, x] = places[at];
      cursor.setAttribute("transform", `translate(${x})`);
      cursor.style.visibility = "visible";
      output.replaceChildren(make("span", `step ${step}`));
      for (const line of lines) {
        const point = line.p.find((p) => p[1] === step);
        if (!point) continue;
        const entry = make("span");
        entry.append(make("i", "", `c${line.c}`), point[2]);
        output.append(entry);
      }
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) * WIDTH) / box.width;
      let nearest = 0;
      places.forEach((place, i) => { if (Math.abs(place[1] - x) < Math.abs(places[nearest][1] - x)) nearest = i; });
      show(nearest);
    });
    chart.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: at + 1, ArrowLeft: at < 0 ? places.length - 1 : at - 1, Home: 0, End: places.length - 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key]);
    });
  }

  // Samples.
  const PAGE = 50;
  const form = find("filters"), rows = find("rows"), article = find("sample");
  let records = [], matching = [], page = 0, chosen = -1;

  const rounded = (value) => (typeof value === "number" ? Number(value.toPrecision(4)) : value);
  const verdict = (one) => (one.w === null ? "unscored" : one.k ? "correct" : "wrong");
  const reasons = (one) => Object.entries(one.y).filter((pair) => pair[1]).map((pair) => pair.join(": "));
  const text = (one) => (one.text ??= fold([one.i, one.p, one.c, one.a ?? "", one.o, ...reasons(one)].join("\n")));
  const values = () => Object.fromEntries(new FormData(form));
  const within = (value, from, to) =>
    (from === "" && to === "") || (value !== null && (from === "" || value >= +from) && (to === "" || value <= +to));

  const matches = (one, v, query) =>
    (v.run === "" || one.r === +v.run) && (v.from === "" || one.f === v.from) &&
    (v.verdict === "" || verdict(one) === v.verdict) && (v.reason === "" || Object.values(one.y).includes(v.reason)) &&
    within(one.s, v.step0, v.step1) && within(one.l, v.len0, v.len1) &&
    within(v.part === "" ? one.w : one.m[v.part] ?? null, v.rew0, v.rew1) &&
    (query === "" || text(one).includes(query));

  const keep = () => {
    const kept = new URLSearchParams(Object.entries(values()).filter((pair) => pair[1] !== ""));
    if (kept.size || location.hash.includes("?")) history.replaceState(null, "", kept.size ? `#samples?${kept}` : "#samples");
  };

  const filter = () => {
    const v = values(), query = fold(v.q.trim());
    matching = records.filter((one) => matches(one, v, query));
    if (v.order) matching.sort((a, b) => (b[v.order] ?? -Infinity) - (a[v.order] ?? -Infinity));
    keep();
    find("count").textContent = `${matching.length.toLocaleString("en")} of ${records.length.toLocaleString("en")} completions`;
    page = 0;
    list();
  };

  const list = () => {
    const pages = Math.max(1, Math.ceil(matching.length / PAGE));
    rows.replaceChildren(...matching.slice(page * PAGE, (page + 1) * PAGE).map((one, i) => {
      const button = make("button");
      button.type = "button";
      button.append(make("b", verdict(one), verdict(one)), ` ${one.c.slice(0, 80).replaceAll("\n", " ")} `,
        make("br"), make("small", `step ${one.s}, ${one.f}, ${one.l ?? "?"} tokens, reward ${rounded(one.w) ?? "-"}, ${one.i}`));
      button.addEventListener("click", () => open(page * PAGE + i));
      const item = make("li");
      item.append(button);
      return item;
    }));
    find("place").textContent = `page ${page + 1} of ${pages}`;
    find("previous").disabled = page === 0;
    find("next").disabled = page >= pages - 1;
    chosen = -1;
    if (matching.length) open(page * PAGE); else article.replaceChildren();
  };

  const open = (index, focus = false) => {
    if (index < 0 || index >= matching.length) return;
    if (Math.floor(index / PAGE) !== page) { page = Math.floor(index / PAGE); list(); }
    chosen = index;
    rows.querySelector("[aria-current]")?.removeAttribute("aria-current");
    const button = rows.children[index % PAGE].firstChild;
    button.setAttribute("aria-current", "true");
    if (focus) button.focus();
    show(matching[index]);
  };

  const show = (one) => {
    const head = make("p");
    head.append(make("b", verdict(one), verdict(one)), ` step ${one.s}, ${one.f}, sample ${one.n} of ${one.i}, ${one.l ?? "?"} tokens, finish reason ${one.e}`);
    const parts = Object.entries(one.m).map(([name, value]) => `${name} ${rounded(value) ?? "unscored"}`);
    const facts = [["Reward", [`total ${rounded(one.w) ?? "unscored"}`, ...parts].join(", ")], ["Reason", reasons(one).join(", ")], ["Answer", one.a ?? "none found"], ["Problem", one.o]];
    const block = (name, content) => { const pre = make("pre"); pre.append(...content); return [make("h3", name), pre]; };
    article.replaceChildren(head, ...block("Prompt", marked(one.p)), ...scale(one), ...block("Completion", completion(one)),
      ...facts.filter((fact) => fact[1]).flatMap(([name, value]) => block(name, marked(value))));
    const pre = article.querySelectorAll("pre")[1];
    pre.id = "completion";
    pre.tabIndex = 0;
    pre.addEventListener("keydown", walk);
    pre.addEventListener("pointerover", point);
    pre.addEventListener("click", point);
    article.scrollTop = 0;
  };

  const KINDS = { right: "attempt that reaches the target", failed: "attempt that fails", error: "attempt with a false step", task: "written by the task: not trained on" };

  // The completion, cut wherever a token, an attempt or a hit of the search begins or ends.
  const completion = (one) => {
    const attempts = (one.h ?? []).map(([start, end, kind]) => ({ start, end, kind }));
    const layers = [tokensOf(one), attempts, hits(one.c).map(([start, end]) => ({ start, end }))];
    const cuts = [...new Set([0, one.c.length, ...layers.flat().flatMap((range) => [range.start, range.end])])].sort((a, b) => a - b);
    const heads = layers.map(() => 0);
    return cuts.slice(0, -1).map((start, i) => {
      const [token, attempt, hit] = layers.map((ranges, layer) => {
        while (ranges[heads[layer]]?.end <= start) heads[layer] += 1;
        const range = ranges[heads[layer]];
        return range && range.start <= start ? range : null;
      });
      const content = one.c.slice(start, cuts[i + 1]);
      return token || attempt || hit ? piece(content, token, attempt, hit) : content;
    });
  };

  const piece = (content, token, attempt, hit) => {
    const part = make(hit ? "mark" : "span", content);
    if (attempt) { part.className = `attempt ${attempt.kind}`; part.title = KINDS[attempt.kind]; }
    if (token) {
      part.classList.add("token", token.share < 0 ? "low" : "high");
      part.dataset.token = token.place;
      part.style.setProperty("--share", `${Math.round(100 * Math.abs(token.share))}%`);
    }
    return part;
  };

  // Figures per token. The scale ends at the largest figures but 5%, so that one token does not make the others pale.
  const color = form.elements.color;
  let tokens = [], at = -1;
  const figuresOf = (one) => {
    const { unit, least } = color.selectedOptions[0].dataset, found = one.t?.[color.value];
    if (found === undefined) return null;
    const numbers = one.t.n.map((_, place) => (Array.isArray(found) ? found[place] : found)).map((value) => (value === null ? null : value / unit));
    const sizes = numbers.filter((value) => value !== null).map(Math.abs).sort((a, b) => a - b);
    return { numbers, most: Math.max(least, sizes[Math.ceil(0.95 * (sizes.length - 1))] ?? 0) };
  };
  const tokensOf = (one) => {
    const figures = figuresOf(one);
    let end = 0;
    at = -1;
    tokens = !figures ? [] : figures.numbers.map((value, place) => {
      const start = end;
      end += one.t.n[place];
      return { place, start, end, value, text: one.c.slice(start, end), share: Math.max(-1, Math.min(1, (value ?? 0) / figures.most)) };
    });
    return tokens;
  };

  const scale = (one) => {
    if (!color.value) return [];
    const { low, high } = color.selectedOptions[0].dataset, figures = figuresOf(one);
    if (!figures) return [make("p", why(one), "scale")];
    const line = make("p", "", "scale"), bar = make("i");
    bar.style.setProperty("--from", low ? "var(--low)" : "transparent");
    bar.style.setProperty("--middle", low ? "50%" : "0%");
    const left = low ? [low, `-${short(figures.most)}`] : ["0"], right = [short(figures.most), high];
    line.append(...left.map((text) => make("span", text)), bar, ...right.map((text) => make("span", text)));
    const output = make("output");
    output.id = "token";
    output.setAttribute("aria-live", "polite");
    return [line, output];
  };
  const why = (one) => {
    const name = color.selectedOptions[0].text;
    if (one.f !== "training") return `Evaluations have no ${name} per token.`;
    return one.t ? `No ${name}: the update did not compute it for this completion.` : "No figures per token were kept for this completion.";
  };
  const short = (value) => `${+value.toPrecision(2)}`;

  const pick = (place, isScrolled) => {
    if (!tokens.length) return;
    at = Math.max(0, Math.min(tokens.length - 1, place));
    const { value, text } = tokens[at], pre = find("completion");
    for (const part of pre.querySelectorAll(".here")) part.classList.remove("here");
    const parts = pre.querySelectorAll(`[data-token="${at}"]`);
    for (const part of parts) part.classList.add("here");
    if (isScrolled) parts[0].scrollIntoView({ block: "nearest" });
    find("token").textContent = `token ${JSON.stringify(text)}: ${color.selectedOptions[0].text} ${value ?? "unknown"}`;
  };
  const walk = (event) => {
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tokens.length - 1 };
    if (!tokens.length || !(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    event.preventDefault();
    pick(moves[event.key], true);
  };
  const point = (event) => {
    const part = event.target.closest("[data-token]");
    if (part) pick(+part.dataset.token, false);
  };
  const recolor = () => {
    keep();
    if (chosen < 0) return;
    const { scrollTop } = article, isFocused = document.activeElement === find("completion"), place = at;
    show(matching[chosen]);
    article.scrollTop = scrollTop;
    if (place >= 0) pick(place, false);
    if (isFocused) find("completion").focus({ preventScroll: true });
  };

  // In lower case, with every character where it was: a few become longer.
  const fold = (content) => {
    const lower = content.toLowerCase();
    if (lower.length === content.length) return lower;
    return Array.from(content, (char) => (char.toLowerCase().length === char.length ? char.toLowerCase() : char)).join("");
  };
  const hits = (content) => {
    const query = fold(values().q.trim()), lower = fold(content), found = [];
    for (let at = query ? lower.indexOf(query) : -1; at >= 0; at = lower.indexOf(query, at + query.length)) found.push([at, at + query.length]);
    return found;
  };
  const marked = (content) => {
    const pieces = [];
    let from = 0;
    for (const [start, end] of hits(content)) {
      pieces.push(content.slice(from, start), make("mark", content.slice(start, end)));
      from = end;
    }
    return [...pieces, content.slice(from)];
  };

  const fill = (name, options) => {
    for (const option of [...new Set(options)].sort()) form.elements[name].append(new Option(option, option));
    form.elements[name].closest("label").hidden = form.elements[name].options.length < 3 && name !== "part" && name !== "reason";
  };

  const begin = (found) => {
    records = found;
    fill("from", records.map((one) => one.f));
    fill("reason", records.flatMap((one) => Object.values(one.y)).filter(Boolean));
    fill("part", records.flatMap((one) => Object.keys(one.m)));
    form.elements.run.closest("label").hidden = form.elements.run.options.length < 3;
    for (const [name, value] of new URLSearchParams(location.hash.split("?")[1] ?? "")) {
      const field = form.elements.namedItem(name);
      if (field) field.value = value;
      if (field?.selectedIndex === -1) field.selectedIndex = 0; // of another report
    }
    form.addEventListener("input", (event) => (event.target === color ? recolor() : filter()));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    find("previous").addEventListener("click", () => { page -= 1; list(); });
    find("next").addEventListener("click", () => { page += 1; list(); });
    document.addEventListener("keydown", keys);
    find("browser").hidden = false;
    find("trouble").remove();
    filter();
  };

  const keys = (event) => {
    const isTyping = event.target.matches("input, select, textarea");
    if (event.key === "/" && !isTyping) { event.preventDefault(); form.elements.q.focus(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    if (event.key === "c" && color.options.length > 1) {
      color.selectedIndex = (color.selectedIndex + 1) % color.options.length;
      recolor();
      return;
    }
    const isInRows = rows.contains(event.target);
    const move = event.key === "j" || (isInRows && event.key === "ArrowDown") ? 1 : event.key === "k" || (isInRows && event.key === "ArrowUp") ? -1 : 0;
    if (!move) return;
    event.preventDefault();
    open(chosen + move, true);
  };

  const unpack = async (packed) => {
    const bytes = Uint8Array.from(atob(packed.trim()), (char) => char.charCodeAt(0));
    return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
  };
  unpack(find("data").textContent).then(begin, (error) => { find("trouble").textContent = `The samples cannot be read: ${error}`; });

  const refresh = +document.body.dataset.refresh;
  const reload = () => (form.contains(document.activeElement) ? setTimeout(reload, 1000 * refresh) : location.reload());
  if (refresh) setTimeout(reload, 1000 * refresh);
})();
