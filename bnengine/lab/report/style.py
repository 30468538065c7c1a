"""The look of the pages: one column, the system's font, light or dark as the screen is, tables that scroll alone."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1f2428; --soft: #57606a; --line: #d8dee4; --paper: #ffffff; --shade: #f4f6f8; --link: #005a9e;
  --yes: #00664b; --yes-shade: #dcf3ea; --part: #7a4b00; --part-shade: #fbeed5;
  --no: #a13800; --no-shade: #fde4d8; --open: #4d5560; --open-shade: #e6e9ed;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --soft: #a0a9b4; --line: #343b44; --paper: #15191e; --shade: #1d2229; --link: #79bdf2;
    --yes: #7fe0bd; --yes-shade: #123a2d; --part: #f2c879; --part-shade: #40300f;
    --no: #ffab85; --no-shade: #46200f; --open: #bcc5cf; --open-shade: #2c333c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere;
}
main, footer { max-width: 60rem; margin: 0 auto; padding: 0 1.25rem; }
main { padding-top: 2.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .7rem; text-wrap: balance; }
section { border-top: 1px solid var(--line); margin-top: 2.6rem; padding-top: 2rem; }
p { margin: .6rem 0; max-width: 46rem; }
.lead { color: var(--soft); font-size: 1.06rem; }
a { color: var(--link); text-underline-offset: .15em; }
.mark {
  display: inline-block; border-radius: .4rem; padding: .08rem .5rem; font-size: .82rem; font-weight: 600;
  line-height: 1.45; overflow-wrap: normal; white-space: nowrap;
}
.yes { color: var(--yes); background: var(--yes-shade); } .part { color: var(--part); background: var(--part-shade); }
.no { color: var(--no); background: var(--no-shade); } .open { color: var(--open); background: var(--open-shade); }
.scroll { overflow-x: auto; margin: .9rem 0; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; line-height: 1.4; }
th, td { text-align: left; vertical-align: top; padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
th { color: var(--soft); font-weight: 600; font-size: .84rem; white-space: nowrap; }
td { overflow-wrap: normal; min-width: 4rem; }
td.wide { min-width: 15rem; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
figure {
  margin: 1.2rem 0; padding: .8rem; border-radius: .6rem; background: #ffffff; border: 1px solid var(--line);
}
figure img { display: block; width: 100%; max-width: var(--width); height: auto; margin: 0 auto; }
footer { color: var(--soft); font-size: .85rem; border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1rem;
  padding-bottom: 2.5rem; }
@media (max-width: 40rem) {
  main { padding-top: 1.6rem; } h1 { font-size: 1.55rem; } figure { padding: .4rem; }
  td.wide { min-width: 11rem; }
}
@media (max-width: 40rem) {
  .cards, .cards tbody, .cards tr, .cards td { display: block; }
  .cards thead { display: none; }
  .cards tr { border-bottom: 1px solid var(--line); padding: .55rem 0; }
  .cards tr:first-child { border-top: 1px solid var(--line); }
  .cards td { border: 0; padding: .12rem 0; min-width: 0; text-align: left; }
  .cards td.number, .cards td.number ~ td { display: inline-block; margin-right: .9rem; }
  .cards td[data-head]::before { content: attr(data-head) " "; color: var(--soft); }
}
@media print { section { break-inside: avoid; } }
"""
