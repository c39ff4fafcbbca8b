/** Smoothing of a sampled line. */

/**
 * Time-weighted exponential moving average with debiasing, after the method that TensorBoard's users know:
 * weight w per median distance of two points, w^(dx / median dx) for a distance dx, so that unevenly spaced
 * points are smoothed alike. NaN stays a gap and does not spread. Weight 0 returns the values.
 */
export function smoothLine(x: ArrayLike<number>, y: ArrayLike<number>, weight: number): Float64Array {
  const out = Float64Array.from(y);
  if (weight <= 0) return out;
  const spacing = medianSpacing(x);
  let average = 0;
  let debias = 0;
  let previous = NaN;
  for (let i = 0; i < out.length; i += 1) {
    const value = y[i] as number;
    if (!Number.isFinite(value)) continue;
    const distance = Number.isNaN(previous) ? 1 : Math.max(0, (x[i] as number) - previous) / spacing;
    const keep = Math.min(weight, 0.9999) ** (distance || 1);
    average = average * keep + value * (1 - keep);
    debias = debias * keep + (1 - keep);
    out[i] = average / debias;
    previous = x[i] as number;
  }
  return out;
}

function medianSpacing(x: ArrayLike<number>): number {
  const gaps: number[] = [];
  for (let i = 1; i < x.length; i += 1) {
    const gap = (x[i] as number) - (x[i - 1] as number);
    if (gap > 0) gaps.push(gap);
  }
  gaps.sort((a, b) => a - b);
  return gaps[gaps.length >> 1] ?? 1;
}
