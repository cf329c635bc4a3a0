#pragma once

namespace eyas::detail {

/// Of report_page(): draws what the element `runs` holds. Text goes into the page as text only.
inline constexpr const char* page_script = R"js(
'use strict';
const runs = JSON.parse(document.getElementById('runs').textContent);
const page = document.querySelector('main');
const colour = i => `var(--run${i % 6})`;
const svgNames = document.getElementById('names').namespaceURI;
let shownStep = -1;  // the TTT step whose curves are shown; -1: all

function add(parent, name, attributes = {}, text = '') {
  const e = parent instanceof SVGElement || name === 'svg' ? document.createElementNS(svgNames, name)
                                                           : document.createElement(name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== '') e.textContent = text;
  parent.append(e);
  return e;
}

function short(v) {
  if (typeof v !== 'number' || !isFinite(v)) return '–';
  const a = Math.abs(v);
  if (a !== 0 && (a < 1e-3 || a >= 1e6)) return v.toExponential(2);
  return String(+v.toPrecision(4));
}

function ticks(low, high, count) {
  const rough = (high - low) / count, ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * ten).find(s => s >= rough);
  const all = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) all.push(+v.toPrecision(12));
  return all;
}

// The curves of one figure: {run, label, held, fade, points: [[step, value], …]}
function curvesOf(key, heldOut) {
  const all = [];
  runs.forEach((run, i) => {
    const sources = [[run.logged, false]];
    if (heldOut) sources.push([run.held_out, true]);
    for (const [lines, held] of sources) {
      const usable = lines.filter(l => l[key] !== undefined && l[key] !== null);
      if (!usable.length) continue;
      const several = Array.isArray(usable[0][key]);
      const count = several ? usable[0][key].length : 1;
      for (let k = 0; k < count; ++k) {
        if (several && shownStep >= 0 && k !== shownStep) continue;
        all.push({run: i, held, fade: several && shownStep < 0 ? 1 - 0.75 * k / Math.max(1, count - 1) : 1,
          label: run.name + (several ? `, TTT step ${k}` : '') + (held ? ', held out' : ''),
          points: usable.map(l => [l.step, several ? l[key][k] : l[key]]).filter(p => isFinite(p[1]) && p[1] !== null)});
      }
    }
  });
  return all.filter(c => c.points.length);
}

function draw(parent, title, unit, key, heldOut) {
  const curves = curvesOf(key, heldOut);
  if (!curves.length) return;
  const figure = add(parent, 'figure', {'data-figure': key});
  add(add(figure, 'figcaption', {}, title), 'span', {class: 'soft'}, unit ? `  ${unit}` : '');
  const w = 520, h = 240, left = 52, right = 10, top = 8, bottom = 26;
  const xs = curves.flatMap(c => c.points.map(p => p[0])), ys = curves.flatMap(c => c.points.map(p => p[1]));
  let x0 = Math.min(...xs), x1 = Math.max(...xs), y0 = Math.min(...ys), y1 = Math.max(...ys);
  if (x0 === x1) { x0 -= 1; x1 += 1; }
  const room = (y1 - y0) * 0.06 || Math.abs(y1) * 0.1 || 1;
  y0 = y0 >= 0 && y0 - room < 0 ? 0 : y0 - room; y1 += room;
  const x = v => left + (v - x0) / (x1 - x0) * (w - left - right);
  const y = v => h - bottom - (v - y0) / (y1 - y0) * (h - top - bottom);
  const svg = add(figure, 'svg', {viewBox: `0 0 ${w} ${h}`, role: 'img', 'aria-label': title});
  for (const v of ticks(y0, y1, 4)) {
    add(svg, 'line', {class: 'grid', x1: left, x2: w - right, y1: y(v), y2: y(v)});
    add(svg, 'text', {x: left - 6, y: y(v) + 4, 'text-anchor': 'end'}, short(v));
  }
  for (const v of ticks(x0, x1, 8)) add(svg, 'text', {x: x(v), y: h - 9, 'text-anchor': 'middle'}, short(v));
  for (const c of curves) {
    const style = {stroke: colour(c.run), opacity: c.fade};
    const line = c.points.map((p, i) => `${i ? 'L' : 'M'}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join('');
    add(svg, 'path', {class: 'curve', d: line, ...style, ...(c.held ? {'stroke-dasharray': '5 4'} : {})});
    if (c.held || c.points.length === 1)
      for (const p of c.points) add(svg, 'circle', {cx: x(p[0]), cy: y(p[1]), r: 2.6, fill: colour(c.run), opacity: c.fade});
  }
  hover(figure, svg, curves, x, {w, h, left, right, top, bottom, x0, x1});
}

function hover(figure, svg, curves, x, at) {
  let tip = null, cursor = null;
  const clear = () => { tip?.remove(); cursor?.remove(); tip = cursor = null; };
  svg.addEventListener('pointerleave', clear);
  svg.addEventListener('pointermove', e => {
    clear();
    const box = svg.getBoundingClientRect(), px = (e.clientX - box.left) / box.width * at.w;
    const step = at.x0 + (px - at.left) / (at.w - at.left - at.right) * (at.x1 - at.x0);
    const nearest = c => c.points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
    const shown = nearest(curves[0])[0];
    cursor = add(svg, 'line', {class: 'cursor', x1: x(shown), x2: x(shown), y1: at.top, y2: at.h - at.bottom});
    tip = add(figure, 'div', {class: 'tip'});
    add(tip, 'div', {class: 'soft'}, `step ${shown}`);
    for (const c of curves.slice(0, 16))
      add(tip, 'div', {style: `color: ${colour(c.run)}`}, `${c.label}: ${short(nearest(c)[1])}`);
    const inside = figure.getBoundingClientRect();
    tip.style.left = Math.min(e.clientX - inside.left + 14, inside.width - tip.offsetWidth - 6) + 'px';
    tip.style.top = Math.max(4, e.clientY - inside.top - tip.offsetHeight - 10) + 'px';
  });
}

// A table whose rows are [label, value of run 0, value of run 1, …].
function table(parent, rows, marked) {
  const t = add(add(parent, 'div', {class: 'tables'}), 'table');
  const head = add(t, 'tr');
  add(head, 'th');
  runs.forEach((r, i) => add(head, 'th', {style: `color: ${colour(i)}`}, r.name));
  for (const [label, ...values] of rows) {
    const differs = marked && new Set(values.map(v => JSON.stringify(v))).size > 1;
    const tr = add(t, 'tr', differs ? {class: 'differs'} : {});
    add(tr, 'td', {}, label);
    for (const v of values)
      add(tr, 'td', typeof v === 'number' ? {class: 'n'} : {},
          v === undefined || v === null ? '–' : typeof v === 'number' ? short(v) : typeof v === 'string' ? v : JSON.stringify(v));
  }
}

function flat(value, prefix = '') {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return [[prefix, value]];
  return Object.entries(value).flatMap(([k, v]) => flat(v, prefix ? `${prefix}.${k}` : k));
}
function tableOf(title, part) {
  const all = runs.map(r => new Map(r.about[part] ? flat(r.about[part]) : []));
  const keys = [...new Set(all.flatMap(m => [...m.keys()]))];
  if (!keys.length) return;
  add(page, 'h2', {}, title);
  table(page, keys.map(k => [k, ...all.map(m => m.get(k))]), runs.length > 1);
}

function charts() {
  const grid = page.querySelector('.charts');
  grid.replaceChildren();
  draw(grid, 'Loss', 'sum over TTT steps with decay', 'loss', true);
  draw(grid, 'Accuracy', 'of the draft’s first choice', 'accuracy', true);
  draw(grid, 'Acceptance rate', 'expected, per TTT step', 'acceptance', true);
  draw(grid, 'Acceptance length', 'tokens a target pass, decoding along held-out texts', 'acceptance_length', true);
  draw(grid, 'Loss of each TTT step', '', 'step_loss', false);
  draw(grid, 'Learning rate', '', 'learning_rate', false);
  draw(grid, 'Gradient norm', 'before clipping', 'grad_norm', false);
  draw(grid, 'Speed', 'tokens/s', 'tokens_per_second', false);
  draw(grid, 'Padding', '% of the rows of batches without a token', 'padding_percent', false);
  draw(grid, 'Stall', '% of the time waiting for batches', 'stall_percent', false);
}

function bar() {
  const lists = runs.flatMap(r => r.logged.map(l => l.accuracy?.length ?? 0));
  const count = Math.max(0, ...lists);
  const b = add(page, 'div', {class: 'bar'});
  add(b, 'span', {class: 'soft'}, 'TTT steps');
  const buttons = [-1, ...Array(count).keys()].map(k => {
    const button = add(b, 'button', {'aria-pressed': k === shownStep}, k < 0 ? 'all' : String(k));
    button.onclick = () => {
      shownStep = k;
      buttons.forEach(o => o.setAttribute('aria-pressed', o === button));
      charts();
    };
    return button;
  });
  add(b, 'span', {class: 'soft'}, 'dashed: held out; paler: later TTT steps');
}

add(page, 'h1', {}, runs.length === 1 ? runs[0].name : `${runs.length} runs`);
add(page, 'div', {class: 'soft'}, 'eyas: training of an EAGLE3 draft');
const legend = add(page, 'div', {class: 'legend'});
runs.forEach((r, i) => {
  const item = add(legend, 'span');
  add(item, 'i', {style: `background: ${colour(i)}`});
  item.append(r.name);
});
bar();
add(page, 'div', {class: 'charts'});
charts();
add(page, 'h2', {}, 'At the end');
const last = list => list.length ? list[list.length - 1] : {};
const figures = v => Array.isArray(v) ? v.map(a => a.toFixed(3)).join('  ') : v;
table(page, [['step', 'step', 0], ['loss', 'loss', 0], ['accuracy', 'accuracy', 0], ['acceptance', 'acceptance', 0],
  ['held out: loss', 'loss', 1], ['held out: accuracy', 'accuracy', 1], ['held out: acceptance', 'acceptance', 1],
  ['held out: acceptance length', 'acceptance_length', 1],
  ['held out: expected tokens a pass', 'expected_tokens_per_pass', 1], ['tokens/s', 'tokens_per_second', 0],
  ['padding %', 'padding_percent', 0],
  ['stall %', 'stall_percent', 0], ['seconds', 'seconds', 0],
  ['of them, stood still for checkpoints', 'checkpoint_seconds', 0]]
  .map(([label, key, held]) => [label, ...runs.map(r => figures(last(held ? r.held_out : r.logged)[key]))]));
tableOf('Memory plan', 'memory_plan');
tableOf('Configuration', 'configuration');
)js";

}  // namespace eyas::detail
