//! What to send next on a connection, and what acknowledgements mean. Pure: it owns no socket and reads no clock.
//!
//! On a new connection the newest record goes first, so that the node is watched again at once; then live records as
//! they come, and between them the oldest that nobody has. What is in flight is bounded.

use std::collections::VecDeque;

use entrenar_proto::RangeSet;
use entrenar_proto::ranges::MAX_ACK_RANGES;

/// Records of the past that may be on the way. When there are as many, the past waits for an acknowledgement.
pub const HISTORY_IN_FLIGHT: usize = 192;

/// Records of any kind that may be on the way. Live ones may use the part that history may not; beyond it they wait
/// in the spool and become history.
pub const MOST_IN_FLIGHT: usize = 256;

/// What an acknowledgement tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is as it should be.
    Fine,
    /// The aggregator has numbers of this stream that were never sent from here: they were given out twice.
    NotOurs,
}

/// One agent's side of the conversation, over all its connections.
#[derive(Debug)]
pub struct Session {
    /// Oldest record that can be sent.
    first_seq: u64,
    /// Number of the next new record.
    next_seq: u64,
    /// Highest number that this process, or one before it on this spool, may have sent.
    highest_sent: u64,
    durable: RangeSet,
    received: RangeSet,
    /// Not to be had, or not taken: given up for this connection.
    given_up: RangeSet,
    in_flight: VecDeque<u64>,
    /// All of the above: what need not be sent now.
    taken: RangeSet,
    /// Whether the newest record has gone first.
    newest_went: bool,
}

impl Session {
    /// For a spool whose first record since it was opened is `opened_seq`.
    pub fn new(opened_seq: u64) -> Self {
        Self {
            first_seq: 1,
            next_seq: opened_seq,
            highest_sent: opened_seq.saturating_sub(1),
            durable: RangeSet::new(),
            received: RangeSet::new(),
            given_up: RangeSet::new(),
            in_flight: VecDeque::new(),
            taken: RangeSet::new(),
            newest_went: false,
        }
    }

    /// A connection begins, with this hello. Nothing may be sent before the first acknowledgement.
    pub fn connected(&mut self, first_seq: u64, next_seq: u64) {
        self.first_seq = first_seq;
        self.next_seq = next_seq;
        self.received = RangeSet::new();
        self.given_up = RangeSet::new();
        self.in_flight.clear();
        self.newest_went = false;
        self.reckon();
    }

    /// Numbers below this exist.
    pub fn grown_to(&mut self, next_seq: u64) {
        self.next_seq = self.next_seq.max(next_seq);
    }

    /// An acknowledgement: the whole of what is received and durable, as far as eight ranges can say it.
    pub fn acknowledged(&mut self, received: &RangeSet, durable: &RangeSet) -> Verdict {
        let highest = received.last().max(durable.last()).unwrap_or(0);
        if highest > self.highest_sent {
            return Verdict::NotOurs;
        }
        self.received = told(&self.received, received);
        self.durable = told(&self.durable, durable);
        // The stream keeps its order: what was sent before something that arrived has arrived too, or was not taken.
        let has = |seq: &u64| self.received.contains(*seq) || self.durable.contains(*seq);
        if let Some(last) = self.in_flight.iter().rposition(has) {
            for seq in self.in_flight.drain(..=last) {
                if !self.received.contains(seq) && !self.durable.contains(seq) {
                    self.given_up.insert(seq);
                }
            }
        }
        self.reckon();
        Verdict::Fine
    }

    /// Whether a new record may go out at once. One that may not is found again as history.
    pub fn wants_live(&self, seq: u64) -> bool {
        self.in_flight.len() < MOST_IN_FLIGHT && !self.taken.contains(seq)
    }

    /// What to read from the spool and send next, both ends included; `None`: nothing is missing, or enough is on
    /// the way. The first time it is the newest record alone.
    pub fn next_history(&self) -> Option<(u64, u64)> {
        let room = HISTORY_IN_FLIGHT.checked_sub(self.in_flight.len() + 1)? as u64;
        let newest = self.next_seq.checked_sub(1)?;
        if !self.newest_went && newest >= self.first_seq && !self.taken.contains(newest) {
            return Some((newest, newest));
        }
        let (first, last) = self.taken.gaps(self.first_seq, newest).next()?;
        Some((first, last.min(first + room)))
    }

    /// A record went out.
    pub fn sent(&mut self, seq: u64) {
        self.newest_went |= seq + 1 >= self.next_seq;
        self.highest_sent = self.highest_sent.max(seq);
        self.in_flight.push_back(seq);
        self.taken.insert(seq);
    }

    /// These are not in the spool any more.
    pub fn missing(&mut self, first: u64, last: u64) {
        self.newest_went |= last + 1 >= self.next_seq;
        self.given_up.insert_range(first, last);
        self.taken.insert_range(first, last);
    }

    /// All that is known to be durable.
    pub fn durable(&self) -> &RangeSet {
        &self.durable
    }

    /// Records that were sent and not yet answered.
    pub fn n_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether all that was sent on this connection is answered, and all that arrived is durable.
    pub fn is_settled(&self) -> bool {
        let is_durable = |(first, last): (u64, u64)| {
            let range = self.durable.range_of(first);
            range.is_some_and(|(_, end)| last <= end)
        };
        self.in_flight.is_empty() && self.received.iter().all(is_durable)
    }

    fn reckon(&mut self) {
        let sets = [&self.durable, &self.received, &self.given_up];
        self.taken = sets.into_iter().flat_map(RangeSet::iter).collect();
        for &seq in &self.in_flight {
            self.taken.insert(seq);
        }
    }
}

/// What is known after a list of ranges came. A list with room to spare is the whole truth; a full one is silent
/// about what is below it.
fn told(known: &RangeSet, list: &RangeSet) -> RangeSet {
    let mut now = list.clone();
    let lowest = list.iter().next().map(|(first, _)| first);
    if let Some(lowest) = lowest.filter(|_| list.n_ranges() >= MAX_ACK_RANGES) {
        for (first, last) in known.iter().filter(|(first, _)| *first < lowest) {
            now.insert_range(first, last.min(lowest - 1));
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1-3 5` as ranges, `-` for none.
    fn ranges(text: &str) -> RangeSet {
        let words = text.split(',').filter(|word| *word != "-");
        words
            .map(|word| {
                let (first, last) = word.split_once('-').unwrap_or((word, word));
                (first.parse().unwrap(), last.parse().unwrap())
            })
            .collect()
    }

    /// What goes out, in a script of words: `+` a new record (sent at once if there is a connection), `new=D` a
    /// connection on which the aggregator has `D` durable, `ack=R/D`, `.` one step of history, `cut` the end of a
    /// connection.
    fn check(script: &str, expected: &str) {
        let mut session = Session::new(1);
        // What a script calls durable was sent before it begins.
        session.highest_sent = 1000;
        let (mut next, mut online, mut sent) = (1, false, Vec::new());
        for word in script.split_whitespace() {
            let (word, times) = match word.split_once('x') {
                Some((word, times)) => (word, times.parse().unwrap()),
                None => (word, 1),
            };
            for _ in 0..times {
                match word.split_once('=').unwrap_or((word, "")) {
                    ("+", _) => {
                        next += 1;
                        session.grown_to(next);
                        if online && session.wants_live(next - 1) {
                            session.sent(next - 1);
                            sent.push(next - 1);
                        }
                    }
                    ("new", durable) => {
                        online = true;
                        session.connected(1, next);
                        let durable = ranges(durable);
                        assert_eq!(session.acknowledged(&durable, &durable), Verdict::Fine);
                    }
                    ("ack", both) => {
                        let (received, durable) = both.split_once('/').unwrap();
                        session.acknowledged(&ranges(received), &ranges(durable));
                    }
                    (".", _) => {
                        if let Some((seq, _)) = session.next_history() {
                            session.sent(seq);
                            sent.push(seq);
                        }
                    }
                    ("cut", _) => online = false,
                    other => panic!("{other:?}"),
                }
            }
        }
        let sent: Vec<String> = sent.iter().map(ToString::to_string).collect();
        assert_eq!(sent.join(" "), expected, "{script}");
    }

    #[test]
    fn the_newest_goes_first_then_live_ones_and_the_oldest_between() {
        check("+x5 new=- . . + . . .", "5 1 6 2 3 4");
        check("new=- + + .", "1 2");
        check("+x5 new=1-3 . . .", "5 4");
        check("+x5 new=1-5 .", "");
    }

    #[test]
    fn what_was_on_the_way_when_the_line_was_cut_is_sent_again() {
        check("new=- +x3 ack=1-3/1 cut + new=1 . . . .", "1 2 3 4 2 3");
        check("new=- +x3 ack=1-3/1-3 cut + new=1-3 . .", "1 2 3 4");
    }

    #[test]
    fn an_aggregator_that_was_set_back_gets_it_again() {
        check("new=- +x4 ack=1-4/1-4 cut new=1-2 . . .", "1 2 3 4 4 3");
        check("new=- +x3 ack=1-3/1-3 ack=1/1 . .", "1 2 3 2 3");
    }

    #[test]
    fn what_the_aggregator_does_not_take_is_not_pressed_on_it() {
        check("new=- +x3 ack=1,3/- . .", "1 2 3");
        check("new=- +x3 ack=1,3/- cut new=1,3 .", "1 2 3 2");
    }

    #[test]
    fn what_is_on_the_way_is_bounded_and_live_records_have_room_of_their_own() {
        let mut session = Session::new(1);
        session.connected(1, 1001);
        session.acknowledged(&RangeSet::new(), &RangeSet::new());
        let mut history = 0;
        while let Some((seq, _)) = session.next_history() {
            session.sent(seq);
            history += 1;
        }
        assert_eq!(history, HISTORY_IN_FLIGHT);
        let mut live = 0;
        for seq in 1001..1200 {
            session.grown_to(seq + 1);
            if session.wants_live(seq) {
                session.sent(seq);
                live += 1;
            }
        }
        assert_eq!(history + live, MOST_IN_FLIGHT);
    }

    #[test]
    fn a_full_list_of_ranges_is_silent_about_what_is_below_it() {
        let mut session = Session::new(100);
        session.connected(1, 100);
        session.acknowledged(&RangeSet::new(), &ranges("1-40"));
        let eight: RangeSet = (0..8).map(|i| (50 + 3 * i, 50 + 3 * i)).collect();
        session.acknowledged(&RangeSet::new(), &eight);
        assert_eq!(session.durable().range_of(40), Some((1, 40)));
        session.acknowledged(&RangeSet::new(), &ranges("50"));
        assert!(!session.durable().contains(40));
    }

    #[test]
    fn numbers_that_this_agent_never_sent_are_not_its_own() {
        let mut session = Session::new(11);
        session.connected(1, 40);
        let theirs = ranges("1-20");
        assert_eq!(session.acknowledged(&theirs, &theirs), Verdict::NotOurs);
        let mut session = Session::new(11);
        session.connected(1, 40);
        let ours = ranges("1-10");
        assert_eq!(session.acknowledged(&ours, &ours), Verdict::Fine);
    }

    /// An hour in virtual time: one record a second, the aggregator away for ten minutes. It takes 50 records a
    /// second, has them durable a second later, and answers each second.
    #[test]
    fn after_ten_minutes_away_live_data_is_current_within_two_seconds_and_the_gap_fills() {
        let mut session = Session::new(1);
        let (mut received, mut durable) = (RangeSet::new(), RangeSet::new());
        let (mut next, mut healed_at) = (1, None);
        for second in 0..3600 {
            next += 1;
            session.grown_to(next);
            let away = (600..1200).contains(&second);
            if away {
                received = durable.clone();
                continue;
            }
            if second == 0 || second == 1200 {
                session.connected(1, next);
                session.acknowledged(&received, &durable);
            }
            let mut arriving = Vec::new();
            if second != 1200 && session.wants_live(next - 1) {
                session.sent(next - 1);
                arriving.push(next - 1);
            }
            while let Some((seq, _)) = session.next_history().filter(|_| arriving.len() < 50) {
                session.sent(seq);
                arriving.push(seq);
            }
            durable = received.clone();
            for seq in arriving {
                received.insert(seq);
            }
            assert_eq!(session.acknowledged(&received, &durable), Verdict::Fine);
            if second > 0 {
                assert!(
                    received.contains(next - 1),
                    "second {second}: the newest is not there"
                );
            }
            if second >= 1200 && healed_at.is_none() && received.n_ranges() == 1 {
                healed_at = Some(second);
            }
        }
        assert_eq!(received.newest(9), [(1, next - 1)]);
        assert_eq!(durable.newest(9), [(1, next - 2)]);
        assert!(
            healed_at.is_some_and(|second| second < 1220),
            "{healed_at:?}"
        );
    }
}
