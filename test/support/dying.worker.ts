/** In the place of a worker: ends at its first request, as it should not. */
declare const self: Worker;

self.addEventListener("message", () => process.exit(1));
self.postMessage("listening");
