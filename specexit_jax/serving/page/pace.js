// The chunks of a stream, no faster than `rate` tokens a second. It reads ahead, so that the server never waits for the page.

export async function* paced(chunks, rate, signal) {
  const held = [];
  let failure, over = false, wake = () => {};
  const reading = async () => {
    try {
      for await (const chunk of chunks) {
        held.push(chunk);
        wake();
      }
    } catch (error) {
      failure = error;
    }
    over = true;
    wake();
  };
  reading();
  let shown = 0;
  while (!(over && !held.length)) {
    if (!held.length) {
      await new Promise((resolve) => { wake = resolve; });
      continue;
    }
    const chunk = held.shift();
    const written = chunk.choices[0]?.specexit?.live?.tokens ?? shown;
    yield chunk;
    await pause(((written - shown) / rate) * 1000, signal);
    shown = written;
  }
  if (failure) throw failure;
}

// Resolves after some milliseconds; rejects as soon as the signal aborts.
function pause(milliseconds, signal) {
  signal.throwIfAborted();
  if (milliseconds <= 0) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const leave = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", leave);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", leave, { once: true });
  });
}
