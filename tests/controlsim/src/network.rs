//! The way between a controller and the API server: delays, losses, watches that lag or break. What befalls a request
//! is decided when it is sent.

use std::time::Duration;

use herald_seeds::Dice;

/// How bad it is. Probabilities are per request or per delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Longest usual delay of a request, and of an answer.
    pub(crate) delay: Duration,
    /// The request is lost.
    pub(crate) lost: f64,
    /// The answer is lost, though the request was carried out.
    pub(crate) unanswered: f64,
    /// The request is carried out only after a long time.
    pub(crate) late: f64,
    /// The longest such time.
    pub(crate) latest: Duration,
    /// The answer takes long.
    pub(crate) slow: f64,
    /// The server can't just now.
    pub(crate) busy: f64,
    /// The server says that it failed, though the request was carried out.
    pub(crate) failed: f64,
    /// Longest usual lag of a watch.
    pub(crate) lag: Duration,
    /// A watch stalls.
    pub(crate) stall: f64,
    /// The longest such time.
    pub(crate) stalls: Duration,
    /// A watch's connection breaks.
    pub(crate) breaks: f64,
    /// The server forgets its history.
    pub(crate) compacts: f64,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) const FAIR: Self = Self {
        delay: Duration::from_millis(5),
        lost: 0.0,
        unanswered: 0.0,
        late: 0.0,
        latest: Duration::from_secs(20),
        slow: 0.0,
        busy: 0.0,
        failed: 0.0,
        lag: Duration::from_millis(20),
        stall: 0.0,
        stalls: Duration::from_secs(4),
        breaks: 0.0,
        compacts: 0.0,
    };

    /// Much is under way at any moment.
    pub(crate) const SLOW: Self = Self { delay: Duration::from_millis(500), ..Self::FAIR };

    /// Requests and answers go astray.
    pub(crate) const ANSWERS: Self = Self {
        delay: Duration::from_millis(40),
        lost: 0.04,
        unanswered: 0.06,
        late: 0.03,
        slow: 0.04,
        busy: 0.04,
        failed: 0.03,
        ..Self::FAIR
    };

    /// Watches are late and break.
    pub(crate) const WATCHES: Self =
        Self { lag: Duration::from_millis(500), stall: 0.1, breaks: 0.04, compacts: 0.3, ..Self::FAIR };

    /// All of it, in a smaller measure.
    pub(crate) const MIXED: Self = Self {
        delay: Duration::from_millis(20),
        lost: 0.01,
        unanswered: 0.02,
        late: 0.02,
        slow: 0.02,
        busy: 0.01,
        failed: 0.01,
        lag: Duration::from_millis(100),
        stall: 0.03,
        breaks: 0.01,
        compacts: 0.2,
        ..Self::FAIR
    };
}

/// What befalls one request.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) arrives: Option<Duration>,
    /// The server refuses with this code instead of carrying it out.
    pub(crate) refused: Option<u16>,
    /// What becomes of the answer.
    pub(crate) answer: AnswerFate,
    /// From the server's deed to the client.
    pub(crate) back: Duration,
    /// It is sent, even if its process dies or stands still before it arrives.
    pub(crate) out: bool,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerFate {
    Arrives,
    Lost,
    /// 504, whatever happened.
    Failed,
}

impl Fate {
    pub(crate) fn draw(dice: &mut Dice, weather: &Weather) -> Self {
        let usual = weather.delay;
        let least = Duration::from_millis(1);
        let mut fate = Self {
            arrives: Some(dice.whole_time(least, usual)),
            refused: None,
            answer: AnswerFate::Arrives,
            back: dice.whole_time(least, usual),
            out: dice.chance(0.7),
        };
        if dice.chance(weather.lost) {
            fate.arrives = None;
        } else if dice.chance(weather.late) {
            fate.arrives = Some(dice.whole_time(usual, weather.latest));
        } else if dice.chance(weather.busy) {
            fate.refused = dice.pick(&[429, 500, 503]).copied();
        }
        if dice.chance(weather.unanswered) {
            fate.answer = AnswerFate::Lost;
        } else if dice.chance(weather.failed) {
            fate.answer = AnswerFate::Failed;
        } else if dice.chance(weather.slow) {
            fate.back = dice.whole_time(usual, Duration::from_secs(9));
        }
        fate
    }

    /// How long it takes a client to see that there will be no answer: a reset soon, keepalives unanswered for some
    /// seconds, or nothing before the client's own limit for responses.
    pub(crate) fn silence(dice: &mut Dice) -> Duration {
        match dice.number(0, 2) {
            0 => dice.whole_ms(1, 400),
            1 => dice.whole_ms(2_000, 11_000),
            _ => herald_runtime::client::RESPONSE_TIMEOUT,
        }
    }
}
