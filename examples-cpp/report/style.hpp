// How the page looks: one column, light or dark as the reader has it.
#pragma once

constexpr const char *style = R"(
:root { color-scheme: light dark; --ground: #ffffff; --raised: #f6f8fa; --ink: #1f2328; --faint: #656d76; --line: #d8dee4;
  --accent: #0969da; --embedding: #4477aa; --attention: #8250df; --mlp: #d4772c; --norm: #3f9c57; --head: #c93c6e; --other: #8c959f; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0d1117; --raised: #161b22; --ink: #e6edf3; --faint: #8d96a0; --line: #30363d; --accent: #4493f8;
    --embedding: #6a9fd4; --attention: #a98bf0; --mlp: #e09550; --norm: #56b670; --head: #e5719a; --other: #7d8590; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; }
h1 { margin: 0; font-size: 30px; line-height: 1.2; overflow-wrap: anywhere; }
header p { margin: 4px 0 12px; color: var(--faint); font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; padding-bottom: 14px; border-bottom: 1px solid var(--line); }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { margin-top: 36px; }
h2 { margin: 0 0 8px; font-size: 21px; }
h3 { margin: 22px 0 8px; font-size: 15px; }
h3 small { margin-left: 10px; color: var(--faint); font-weight: 400; font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
p { max-width: 760px; margin: 6px 0 12px; }
.note, footer { color: var(--faint); font-size: 13px; }
footer { margin-top: 40px; padding-top: 14px; padding-bottom: 32px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tile { padding: 12px 14px; background: var(--raised); border: 1px solid var(--line); border-radius: 8px; }
.tile b { display: block; font-size: 20px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--faint); font-size: 13px; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 0 32px; margin: 18px 0 0; }
.facts div { display: flex; justify-content: space-between; gap: 16px; padding: 5px 0; border-bottom: 1px solid var(--line); }
dt { color: var(--faint); }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 13px; }
th { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); color: var(--faint); font-weight: 500; text-align: left; vertical-align: bottom; }
td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.n + td:not(.n), .n + th:not(.n) { padding-left: 10px; }
.c { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
td small { display: block; max-width: 300px; color: var(--faint); font-size: 11px; }
td small.fused { max-width: 210px; color: var(--accent); }
td b { font-weight: 600; }
.idle { color: var(--faint); }
.bar { display: flex; height: 22px; margin: 10px 0; overflow: hidden; border-radius: 6px; background: var(--raised); }

.bar i { min-width: 3px; }
.bar i + i { border-left: 1px solid var(--ground); }
.key { display: inline-block; width: 10px; height: 10px; margin-right: 8px; border-radius: 3px; }
.wide { min-width: 220px; }
.gauge { display: inline-block; height: 9px; border-radius: 3px; background: var(--other); vertical-align: middle; }
.wide > .gauge { background: var(--accent); }
.race { display: flex; align-items: center; gap: 6px; color: var(--faint); font-size: 11px; line-height: 1.4; font-variant-numeric: tabular-nums; }
.race span:first-child { width: 52px; }
.gauge.chosen { background: var(--norm); }
details { margin-top: 14px; padding: 10px 14px; border: 1px solid var(--line); border-radius: 8px; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font: 12px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
svg { display: block; width: 100%; min-width: 640px; margin-bottom: 12px; }
.legend { margin-right: 16px; white-space: nowrap; }
svg text { fill: var(--faint); font-size: 11px; }
svg line { stroke: var(--line); stroke-width: 1; }
.key, .bar i { background: var(--other); }
rect { fill: var(--other); }
i.part-weights, i.part-embedding { background: var(--embedding); }
i.part-tokenizer, i.part-attention { background: var(--attention); }
i.part-kernels, i.part-mlp { background: var(--mlp); }
i.part-plan, i.part-norm { background: var(--norm); }
i.part-tactics, i.part-record, i.part-head { background: var(--head); }
rect.part-embedding { fill: var(--embedding); }
rect.part-attention { fill: var(--attention); }
rect.part-mlp { fill: var(--mlp); }
rect.part-norm { fill: var(--norm); }
rect.part-head { fill: var(--head); }
)";
