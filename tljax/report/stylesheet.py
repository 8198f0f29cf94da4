"""The page's inline CSS: light, one column, readable on paper, desk and phone."""

CSS = """
:root { color-scheme: light; --ink: #222; --quiet: #5c5c5c; --line: #ddd; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 900px; padding: 24px 20px 64px; background: #fff;
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 44px 0 10px; padding-top: 14px;
  border-top: 1px solid var(--line); }
h3 { font-size: 16px; margin: 22px 0 8px; }
p { margin: 8px 0; }
.subtitle, .note, figcaption { color: var(--quiet); font-size: 14px; }
.answer { font-size: 18px; line-height: 1.5; margin: 20px 0; padding: 14px 18px;
  background: #f3f6f9; border-left: 4px solid #0072B2; }
.answer p { margin: 0; } .answer p + p { margin-top: 10px; }
.facts { display: flex; flex-wrap: wrap; gap: 12px 32px; margin: 0; }
.facts div { flex: 1 1 200px; display: flex; flex-direction: column-reverse;
  justify-content: flex-end; }
.facts dt { color: var(--quiet); font-size: 14px; line-height: 1.4; }
.facts dd { margin: 0; font-size: 24px; font-weight: 600; }
.scroll { overflow-x: auto; }
.narrow { max-width: 420px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; margin: 10px 0;
  font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: baseline; }
thead th { border-bottom: 1.5px solid #999; white-space: nowrap; }
tbody th { font-weight: 500; }
table:not(.numbers) tbody th { white-space: nowrap; }
th:first-child { padding-left: 0; } td:last-child, th:last-child { padding-right: 0; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right;
  white-space: nowrap; }
.quiet { color: var(--quiet); font-size: 13px; }
.numbers td .quiet { display: block; }
.arm { white-space: nowrap; }
.arm::before { content: ""; display: inline-block; width: 11px; height: 11px;
  margin-right: 6px; border-radius: 2px; background: var(--arm); }
.verdict { padding: 2px 8px; border-radius: 3px; font-size: 12.5px; font-weight: 600;
  background: #eee; color: #444; }
.verdict.pass { background: #dcefe6; color: #0b5a3c; }
.verdict.fail { background: #f9e0d2; color: #8a3200; }
figure { margin: 14px 0; }
figcaption { margin-top: 6px; }
svg { display: block; max-width: 100%; height: auto; }
.wide svg { min-width: 620px; }
.panels { display: grid; gap: 14px 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr)); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 4px 0 10px;
  font-size: 14.5px; }
.line::before { content: ""; display: inline-block; width: 26px; margin-right: 7px;
  vertical-align: middle; border-top: 2px solid #444; }
.line.dashed::before { border-top-style: dashed; }
.items { padding-left: 24px; } .items li { margin-bottom: 14px; }
blockquote { margin: 0; overflow-wrap: anywhere; }
code, pre { font: 13px/1.45 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: 10px 12px; background: #f6f6f6; }
details { margin: 10px 0; } summary { cursor: pointer; }
@media (max-width: 600px) {
  body { padding: 16px 14px 48px; } .answer { font-size: 17px; padding: 12px 14px; }
  h1 { font-size: 22px; } th, td { padding: 6px 7px; }
}
@media print { section { break-inside: avoid-page; } .scroll { overflow: visible; } }
"""
