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

  const verdict = (one) => (one.w === null ? "unscored" : one.k ? "correct" : "wrong");
  const reasons = (one) => Object.entries(one.y).filter((pair) => pair[1]).map((pair) => pair.join(": "));
  const text = (one) => (one.text ??= [one.i, one.p, one.c, one.a ?? "", one.o, ...reasons(one)].join("\n").toLowerCase());
  const values = () => Object.fromEntries(new FormData(form));
  const within = (value, from, to) =>
    (from === "" && to === "") || (value !== null && (from === "" || value >= +from) && (to === "" || value <= +to));

  const matches = (one, v, query) =>
    (v.run === "" || one.r === +v.run) && (v.from === "" || one.f === v.from) &&
    (v.verdict === "" || verdict(one) === v.verdict) && (v.reason === "" || Object.values(one.y).includes(v.reason)) &&
    within(one.s, v.step0, v.step1) && within(one.l, v.len0, v.len1) &&
    within(v.part === "" ? one.w : one.m[v.part] ?? null, v.rew0, v.rew1) &&
    (query === "" || text(one).includes(query));

  const filter = () => {
    const v = values(), query = v.q.trim().toLowerCase();
    matching = records.filter((one) => matches(one, v, query));
    if (v.order) matching.sort((a, b) => (b[v.order] ?? -Infinity) - (a[v.order] ?? -Infinity));
    const kept = new URLSearchParams(Object.entries(v).filter((pair) => pair[1] !== ""));
    if (kept.size || location.hash.includes("?")) history.replaceState(null, "", kept.size ? `#samples?${kept}` : "#samples");
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
        make("br"), make("small", `step ${one.s}, ${one.f}, ${one.l ?? "?"} tokens, reward ${one.w ?? "-"}, ${one.i}`));
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
    const parts = Object.entries(one.m).map(([name, value]) => `${name} ${value ?? "unscored"}`);
    const facts = [["Reward", [`total ${one.w ?? "unscored"}`, ...parts].join(", ")], ["Reason", reasons(one).join(", ")], ["Answer", one.a ?? "none found"], ["Problem", one.o]];
    const block = (name, content) => { const pre = make("pre"); pre.append(...content); return [make("h3", name), pre]; };
    article.replaceChildren(head, ...block("Prompt", marked(one.p)), ...colorChoice(one), ...block("Completion", completion(one)),
      ...facts.filter((fact) => fact[1]).flatMap(([name, value]) => block(name, marked(value))));
    article.scrollTop = 0;
  };

  const KINDS = { right: "attempt that reaches the target", failed: "attempt that fails", error: "attempt with a false step" };
  let coloredBy = "";
  const figures = (one) => Object.keys(one.t ?? {}).filter((name) => name !== "text");

  const completion = (one) => {
    if (figures(one).includes(coloredBy)) return colored(one.t.text, one.t[coloredBy], coloredBy);
    const pieces = [];
    let from = 0;
    for (const [start, end, kind] of one.h ?? []) {
      const part = make("span", "", `attempt ${kind}`);
      part.title = KINDS[kind];
      part.append(...marked(one.c.slice(start, end)));
      pieces.push(...marked(one.c.slice(from, start)), part);
      from = end;
    }
    return [...pieces, ...marked(one.c.slice(from))];
  };

  // The larger a token's figure, the stronger its color; negative figures have another one.
  const colored = (tokens, numbers, name) => {
    const most = Math.max(...numbers.map((value) => Math.abs(value ?? 0))) || 1;
    return tokens.map((token, i) => {
      const part = make("span", token, "token"), value = numbers[i];
      if (value === null) return part;
      part.title = `${name} ${+value.toPrecision(3)}`;
      const strength = Math.round((70 * Math.abs(value)) / most);
      part.style.backgroundColor = `color-mix(in srgb, var(${value < 0 ? "--bad" : "--link"}) ${strength}%, transparent)`;
      return part;
    });
  };

  const colorChoice = (one) => {
    if (!figures(one).length) return [];
    const select = make("select"), label = make("label", "Color tokens by ");
    select.id = "color";
    select.append(new Option("nothing", ""), ...figures(one).map((name) => new Option(name, name)));
    select.value = figures(one).includes(coloredBy) ? coloredBy : "";
    select.addEventListener("input", (event) => { event.stopPropagation(); coloredBy = select.value; show(one); find("color").focus(); });
    label.append(select);
    return [label];
  };

  const marked = (content) => {
    const query = values().q.trim().toLowerCase(), lower = content.toLowerCase(), pieces = [];
    let from = 0;
    for (let at = query ? lower.indexOf(query) : -1; at >= 0; at = lower.indexOf(query, from)) {
      pieces.push(content.slice(from, at), make("mark", content.slice(at, at + query.length)));
      from = at + query.length;
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
      if (form.elements[name]) form.elements[name].value = value;
    }
    form.addEventListener("input", filter);
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
