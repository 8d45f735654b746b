/**
 * frost_alarm.js: wakes the gardener before the seedlings die.
 *
 * Runs on the small computer in the greenhouse of the research station, where the trees for the
 * windbreak are raised: Monterey pine, whitebeam, and the mulberries that nobody ordered. A frost
 * on the west side is rare, six or seven nights in a year, and for that very reason nobody stays
 * awake for it.
 *
 * The trick is to ring early enough to be of use and seldom enough to be believed. A plain
 * threshold at zero rings when it is too late; one at four degrees rang on fifty-one nights in
 * the first winter, and after the twentieth the gardener put the telephone under a pillow. We
 * therefore extrapolate.
 */

/** Degrees at which soft growth is lost. Measured on leaves in 2020, not taken from a book. */
const LETHAL_C = -1.5;

/** Somebody must dress, walk up from the house and light two paraffin heaters: 35 minutes. */
const NOTICE_MIN = 35;

/**
 * Predict the coldest moment before sunrise.
 *
 * On a clear, still night the temperature falls with the square root of the time since sunset, an
 * old rule of fruit growers. We fit its single coefficient to the readings of the evening. Cloud
 * or wind break the rule, and then the fit is poor and we return null rather than guess.
 *
 * @param {{hours: number, celsius: number}[]} readings since sunset, at least eight of them
 * @param {number} night length of the night in hours
 * @returns {number | null}
 */
function predictMinimum(readings, night) {
  if (readings.length < 8) return null;
  const start = readings[0].celsius;
  let top = 0;
  let bottom = 0;
  for (const { hours, celsius } of readings) {
    top += Math.sqrt(hours) * (start - celsius);
    bottom += hours;
  }
  const fall = top / bottom;
  const misfit = Math.max(
    ...readings.map(({ hours, celsius }) => Math.abs(start - fall * Math.sqrt(hours) - celsius)),
  );
  return misfit > 0.8 ? null : start - fall * Math.sqrt(night);
}

/**
 * Decide whether to ring now.
 *
 * Without a prediction we fall back on the thermometer and ring at half a degree above zero. A
 * broken sensor reads 85 or minus 127; both ring at once, with another melody, since a blind
 * alarm is worse than none.
 */
function shouldRing(readings, night, minutesToMinimum) {
  const now = readings[readings.length - 1].celsius;
  if (now > 60 || now < -60) return "sensor";
  const coldest = predictMinimum(readings, night);
  if (coldest === null) return now <= 0.5 ? "frost" : null;
  return coldest <= LETHAL_C && minutesToMinimum <= NOTICE_MIN * 4 ? "frost" : null;
}

module.exports = { predictMinimum, shouldRing, LETHAL_C, NOTICE_MIN };
