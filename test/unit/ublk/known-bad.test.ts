/** Goal: kernels with known bugs are recognized, and their neighbours are not. */
import { expect, test } from "bun:test";
import { whyBadDriver } from "../../../src/ublk/known-bad.ts";

test.each([
  ["6.18.4", true],
  ["6.18.5-arch1-1", true],
  ["6.17.0-1015-azure", true],
  ["6.17.0-1018-azure", true],
  ["6.17.0-1017-aws", true],
  ["6.18.6", false],
  ["6.18.40", false],
  ["6.18.44-fc-v669", false],
  ["6.17.0-1014-azure", false],
  ["6.17.0-14-generic", false],
  ["16.18.4", false],
  ["6.12.117+deb12-cloud-amd64", false],
])("%s: %p", (release, isBad) => {
  const why = whyBadDriver(release);
  expect(why !== undefined).toBe(isBad);
  if (isBad)
    expect(why).toMatch(new RegExp(`Linux ${release} is known .* \\(https://github\\.com/[^ )]+\\)$`));
});
