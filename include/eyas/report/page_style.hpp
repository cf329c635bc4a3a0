#pragma once

namespace eyas::detail {

/// Of report_page(). Light or dark as the reader's system is; colours of runs are --run0 … --run5.
inline constexpr const char* page_style = R"css(
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #d9dce1; --page: #f7f8fa;
  --card: #ffffff; --run0: #1f6feb; --run1: #d1571c; --run2: #13866f; --run3: #8e44ad; --run4: #a8780a;
  --run5: #b3245e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9ba1a9; --line: #33383f;
  --page: #14171a; --card: #1c2024; --run0: #6cabff; --run1: #ff9a5c; --run2: #4fd1b3; --run3: #c795e8;
  --run4: #e2b64c; --run5: #f287b0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 14px/1.45 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 28px 0 10px; }
.soft { color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 10px 0 0; }
.legend i { display: inline-block; width: 18px; height: 3px; margin-right: 7px; vertical-align: middle; }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; margin: 14px 0; }
.bar button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: 2px 10px; cursor: pointer; }
.bar button[aria-pressed=true] { border-color: var(--ink); font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 14px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px 6px; position: relative; }
figcaption { font-weight: 600; margin-bottom: 2px; } figcaption span { font-weight: 400; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; } svg .grid { stroke: var(--line); stroke-width: 1; }
svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .cursor { stroke: var(--soft); stroke-dasharray: 2 3; }
.tip { position: absolute; pointer-events: none; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: 5px 8px; font-size: 12px; box-shadow: 0 2px 8px #0003; z-index: 2;
  white-space: nowrap; }
.tables { overflow-x: auto; }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
td, th { text-align: left; padding: 4px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.differs td { font-weight: 600; }
)css";

}  // namespace eyas::detail
