/** What a terminal shows, as a still picture. */
import { DARK, LIGHT, svgFile, text } from "./svg.ts";

const MARGIN = 16;
/** In pixels: a character of the font is this wide, whichever font the reader has. */
const COLUMN_WIDTH = 7.8;
const LINE_HEIGHT = 18;
/** Between a command's answer and the next command. */
const GAP = 8;

const PROMPT = "$ ";

const STYLE = `
  .page { fill: ${LIGHT.page} } .command { fill: ${LIGHT.text}; font-weight: 600 }
  text { fill: ${LIGHT.quiet}; font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
  @media (prefers-color-scheme: dark) {
    .page { fill: ${DARK.page} } text { fill: ${DARK.quiet} } .command { fill: ${DARK.text} }
  }
`;

/** The text of an SVG file. A line of `printed` that begins with a prompt is a command; the rest is answers. */
export function drawTerminal(printed: string, label: string): string {
  const lines = printed.trim().split("\n");
  const parts: string[] = [];
  let y = MARGIN;
  for (const line of lines) {
    y += line === "" ? GAP : LINE_HEIGHT;
    if (line !== "") parts.push(drawLine(line, y));
  }
  const columns = Math.max(...lines.map(({ length }) => length));
  return svgFile({
    width: Math.ceil(columns * COLUMN_WIDTH) + 2 * MARGIN,
    height: y + MARGIN,
    label,
    style: STYLE,
    parts: [`<g xml:space="preserve">`, ...parts, "</g>"],
  });
}

function drawLine(line: string, y: number): string {
  const style = line.startsWith(PROMPT) ? "command" : undefined;
  const width = Math.round(line.length * COLUMN_WIDTH);
  return text(MARGIN, y, line, style, ` textLength="${width}"`);
}
