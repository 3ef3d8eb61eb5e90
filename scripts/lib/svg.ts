/** The text of SVG files without fonts or scripts of their own, in the colours that the reader has chosen. */

/** Colours of either mode. */
export const LIGHT = { page: "#ffffff", text: "#1f2328", quiet: "#59636e" } as const;
export const DARK = { page: "#0d1117", text: "#e6edf3", quiet: "#9198a1" } as const;

export interface Drawing {
  readonly width: number;
  readonly height: number;
  /** What the picture shows, for those who do not see it. */
  readonly label: string;
  /** The style sheet: `.page` is the background. */
  readonly style: string;
  readonly parts: readonly string[];
}

/** The text of the file. */
export function svgFile({ width, height, label, style, parts }: Drawing): string {
  const area = `width="${width}" height="${height}"`;
  const scale = `viewBox="0 0 ${width} ${height}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${area} ${scale} role="img" aria-label="${label}">`,
    `<style>${style}</style>`,
    `<rect class="page" ${area}/>`,
    ...parts,
    "</svg>\n",
  ].join("\n");
}

/** A line of text from `x` on the base line `y`. `attributes` are further ones, as they stand in the file. */
export function text(x: number, y: number, content: string, style?: string, attributes = ""): string {
  const named = style === undefined ? "" : ` class="${style}"`;
  const escaped = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<text x="${x}" y="${y}"${named}${attributes}>${escaped}</text>`;
}
