//! What came before live messages, and what pages of history held, against the log's own order.
//!
//! A reader notes what it asked for and what it got; what can be told at once is told at once, the rest is judged when the order is whole
//! ([`Truth::judge_replays`]). The numbers are those of protocol.md, written here once more.

use super::plan::Retained;
use super::truth::{MessageId, SessionNumber, Truth};
use super::wire::Place;

const REPLAY_MESSAGES_MAX: usize = 1_000;
const REPLAY_BYTES_MAX: usize = 512 * 1024;
const REPLAY_MESSAGES_DEFAULT: u32 = 50;
const PAGE_BYTES_MAX: usize = 64 * 1024;
/// A message's frame beside its body, at most: names, position, time, the words between.
const BESIDE_BODY_BYTES: usize = 400;

/// Where a reader says it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// In another life of the log.
    Elsewhere,
    At(Place),
}

/// What a join, or a `hello` for the inbox, wants before live messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    Newest(u32),
    Since(Stand, Option<u32>),
}

/// What a `joined` or a `welcome` said of its replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) at: Place,
    pub(crate) replay: u32,
    pub(crate) recovered: Option<bool>,
}

/// One replay: what was wanted, what was said, what came.
#[derive(Debug)]
pub(crate) struct Replay {
    session: SessionNumber,
    room: String,
    wish: Wish,
    said: Said,
    /// Rooms had been forgotten whole by the time the answer was read.
    forgetful: bool,
    /// What the wall clock said by then.
    read_ms: u64,
    seen: Vec<(Place, MessageId)>,
}

impl Replay {
    /// No later moment can have counted for what was still retained.
    fn until_ms(&self) -> u64 {
        self.said.at.ms.max(self.read_ms)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Newest,
    Before(Place),
    After(Place),
    /// On one side of a position of another life of the log.
    BeforeElsewhere,
}

/// A page as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) room: String,
    pub(crate) range: Range,
    pub(crate) limit: u32,
    /// The newest position of the room that the reader had seen when it asked.
    pub(crate) known: Option<Place>,
}

/// A page as it came.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) session: SessionNumber,
    pub(crate) question: Question,
    pub(crate) more: bool,
    pub(crate) seen: Vec<(Place, MessageId)>,
    pub(crate) forgetful: bool,
    /// What the wall clock said when the answer was read.
    pub(crate) read_ms: u64,
}

type Order<'a> = &'a [(Place, MessageId)];

impl Truth {
    /// Takes note of an answer that a replay follows; the result is its index.
    pub(crate) fn begin_replay(&mut self, session: SessionNumber, room: &str, wish: Wish, said: Said) -> Result<usize, String> {
        let most = |newest: Option<u32>| (newest.unwrap_or(REPLAY_MESSAGES_DEFAULT) as usize).min(REPLAY_MESSAGES_MAX);
        let (fits, most) = match (wish, said.recovered) {
            (Wish::Nothing, recovered) => (recovered.is_none(), 0),
            (Wish::Newest(newest), recovered) => (recovered.is_none(), most(Some(newest))),
            (Wish::Since(Stand::Elsewhere, newest), recovered) => (recovered == Some(false), most(newest)),
            (Wish::Since(Stand::At(_), newest), Some(false)) => (true, most(newest)),
            (Wish::Since(Stand::At(_), _), recovered) => (recovered.is_some(), REPLAY_MESSAGES_MAX),
        };
        if !fits || said.replay as usize > most {
            return Err(format!("{said:?} answers {wish:?}"));
        }
        let forgetful = self.evictions > 0;
        self.replays.push(Replay { session, room: room.to_owned(), wish, said, forgetful, read_ms: self.wall_ms, seen: Vec::new() });
        Ok(self.replays.len() - 1)
    }

    /// A message of a replay; `true` when it was the last one.
    pub(crate) fn replayed(&mut self, index: usize, at: Place, id: MessageId) -> Result<bool, String> {
        let replay = &mut self.replays[index];
        if at > replay.said.at {
            return Err(format!("a live message inside a replay, {at:?}: {replay:?}"));
        }
        if replay.seen.last().is_some_and(|(before, _)| *before >= at) {
            return Err(format!("a replay that does not rise, {at:?}: {replay:?}"));
        }
        replay.seen.push((at, id));
        Ok(replay.seen.len() == replay.said.replay as usize)
    }

    /// Everything about replays and pages that needs the whole order.
    pub(super) fn judge_replays(&self) -> Result<(), String> {
        let order_of = |room: &str| self.order_of(room).map(|order| order.iter().map(|(at, id)| (*at, *id)).collect::<Vec<_>>());
        for replay in &self.replays {
            let order = order_of(&replay.room).unwrap_or_default();
            let until = order.partition_point(|(at, _)| *at <= replay.said.at);
            self.judge_replay(replay, &order[..until]).map_err(|error| format!("session {}: {error}; {replay:?}", replay.session))?;
        }
        for page in &self.pages {
            let order = order_of(&page.question.room).unwrap_or_default();
            self.judge_page(page, &order).map_err(|error| format!("session {}: {error}; {page:?}", page.session))?;
        }
        Ok(())
    }

    /// `order` ends where the answer said that the room stands.
    fn judge_replay(&self, replay: &Replay, order: Order<'_>) -> Result<(), String> {
        let count = replay.said.replay as usize;
        let whole = replay.seen.len() == count;
        let newest = match (replay.wish, replay.said.recovered) {
            (Wish::Nothing, _) => return Ok(()),
            (Wish::Newest(newest), _) => newest,
            (Wish::Since(Stand::At(place), _), Some(true)) => {
                let due = &order[order.partition_point(|(at, _)| *at <= place)..];
                if due.len() != count {
                    return Err(format!("{} messages were missed, {count} replayed", due.len()));
                }
                return same_beginning(due, &replay.seen, whole);
            }
            (Wish::Since(stand, newest), _) => {
                if let Stand::At(place) = stand {
                    self.judge_unrecovered(replay, order, place)?;
                }
                newest.unwrap_or(REPLAY_MESSAGES_DEFAULT)
            }
        };
        let newest = (newest as usize).min(REPLAY_MESSAGES_MAX);
        if count > order.len() {
            return Err(format!("{count} messages replayed, the room has had {}", order.len()));
        }
        same_beginning(&order[order.len() - count..], &replay.seen, whole)?;
        // One more than came would have fitted, and was certainly retained.
        let more = &order[order.len() - newest.min(order.len()).min(count + 1)..];
        if more.len() > count && self.is_retained(more, replay.until_ms(), replay.forgetful) && self.bytes(more) < REPLAY_BYTES_MAX {
            return Err(format!("only {count} of the newest {newest} were replayed"));
        }
        Ok(())
    }

    /// `recovered` false: for one of the contract's reasons.
    fn judge_unrecovered(&self, replay: &Replay, order: Order<'_>, place: Place) -> Result<(), String> {
        let due = &order[order.partition_point(|(at, _)| *at <= place)..];
        let unknown = place > replay.said.at;
        let many = due.len() > REPLAY_MESSAGES_MAX || self.bytes(due) > REPLAY_BYTES_MAX;
        if unknown || many || !self.is_retained(due, replay.until_ms(), replay.forgetful) {
            return Ok(());
        }
        Err(format!("not recovered from {place:?}, though all {} messages behind it are retained", due.len()))
    }

    fn judge_page(&self, page: &Page, order: Order<'_>) -> Result<(), String> {
        let Page { question, seen, more, forgetful, read_ms, .. } = page;
        let Some(((first, _), (last, _))) = seen.first().zip(seen.last()) else {
            return self.judge_empty_page(page, order);
        };
        let start = order.partition_point(|(at, _)| at < first);
        if order.get(start..start + seen.len()) != Some(seen.as_slice()) {
            return Err(format!("a page with a hole: {:?}", order.get(start..start + seen.len())));
        }
        let (older, newer) = (&order[..start], &order[start + seen.len()..]);
        let retained =
            |messages: Order<'_>| self.is_retained(messages, order.last().map_or(*last, |(at, _)| *at).ms.max(*read_ms), *forgetful);
        match question.range {
            Range::BeforeElsewhere => return Err("a page before another life of the log".into()),
            Range::Newest if question.known.is_some_and(|known| known > *last) && retained(&order[start..]) => {
                return Err("the newest page ends before what its reader had seen".into());
            }
            Range::Before(place) if *last >= place || newer.first().is_some_and(|(at, _)| *at < place) => {
                return Err("a page that does not end before its position".into());
            }
            Range::After(place) if *first <= place => return Err("a page that begins before its position".into()),
            Range::After(place) if older.last().is_some_and(|(at, _)| *at > place) && retained(&order[start - 1..]) => {
                return Err("a page that begins too late".into());
            }
            _ => {}
        }
        let forward = matches!(question.range, Range::After(_));
        let next = if forward { newer.first() } else { older.last() };
        match next {
            None if *more => Err("more in a direction where there is nothing".into()),
            Some(_) if !more && !forward && retained(&order[start - 1..]) => Err("nothing older, though it is retained".into()),
            Some(_) if !more && forward && question.known.is_some_and(|known| known > *last) => {
                Err("nothing newer, though there is".into())
            }
            Some(next) if *more && seen.len() < question.limit as usize => {
                let bytes = self.bytes(seen) + self.bytes(&[*next]);
                if bytes < PAGE_BYTES_MAX { Err("a page that has room for more".into()) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn judge_empty_page(&self, page: &Page, order: Order<'_>) -> Result<(), String> {
        let Page { question, more, forgetful, read_ms, .. } = page;
        if *more {
            return Err("an empty page with more".into());
        }
        let Some(known) = question.known else { return Ok(()) };
        let side = match question.range {
            Range::BeforeElsewhere => return Ok(()),
            Range::Newest => order,
            Range::Before(place) => &order[..order.partition_point(|(at, _)| *at < place)],
            Range::After(place) => &order[order.partition_point(|(at, _)| *at <= place)..],
        };
        let there = side.iter().any(|(at, _)| *at <= known);
        let newest = order.last().map_or(known, |(at, _)| *at);
        let behind = side.first().map_or(order.len(), |(first, _)| order.partition_point(|(at, _)| at < first));
        let messages = if matches!(question.range, Range::After(_)) { &order[behind..] } else { &order[side.len().saturating_sub(1)..] };
        if there && self.is_retained(messages, newest.ms.max(*read_ms), *forgetful) {
            Err("an empty page of a room that retains some".into())
        } else {
            Ok(())
        }
    }

    /// Whether a room certainly still had all of `messages`, its newest ones, at this time of the wall clock.
    fn is_retained(&self, messages: Order<'_>, until_ms: u64, forgetful: bool) -> bool {
        let Retained { messages_max, bytes_max, age_ms, shard_is_small } = self.retained;
        let aged = messages.first().is_some_and(|(oldest, _)| oldest.ms.saturating_add(age_ms) <= until_ms);
        !forgetful && !shard_is_small && !aged && messages.len() <= messages_max && self.bytes(messages) <= bytes_max
    }

    /// More bytes than the messages' frames can have.
    fn bytes(&self, messages: Order<'_>) -> usize {
        messages.iter().filter_map(|(_, id)| self.message(*id)).map(|message| message.body.len() + BESIDE_BODY_BYTES).sum()
    }
}

/// What came is the beginning of what was due, or all of it.
fn same_beginning(due: Order<'_>, seen: Order<'_>, whole: bool) -> Result<(), String> {
    let wrong = due.iter().zip(seen).find(|(due, seen)| due != seen);
    match wrong {
        Some((due, seen)) => Err(format!("{seen:?} where {due:?} was due")),
        None if seen.len() > due.len() || (whole && seen.len() < due.len()) => Err(format!("{} messages of {}", seen.len(), due.len())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::truth::tests::truth_of_five;
    use super::*;

    fn at(n: u64) -> Place {
        Place { ms: 1, n }
    }

    /// A reader that stood at the second of five messages is told `recovered` and sent `seen`.
    fn recovered(seen: &[u64]) -> Result<(), String> {
        let mut truth = truth_of_five();
        let said = Said { at: at(5), replay: u32::try_from(seen.len()).expect("few"), recovered: Some(true) };
        let replay = truth.begin_replay(1, "r", Wish::Since(Stand::At(at(2)), None), said)?;
        for id in seen {
            truth.replayed(replay, at(id + 1), *id)?;
        }
        truth.judge_replays()
    }

    #[test]
    fn a_replay_of_exactly_what_was_missed_is_accepted() {
        assert_eq!(recovered(&[2, 3, 4]), Ok(()));
    }

    #[test]
    fn a_replay_one_short_one_over_or_out_of_order_is_caught() {
        for wrong in [&[3, 4][..], &[2, 3], &[2, 4], &[1, 2, 3, 4], &[2, 2, 3, 4], &[3, 2, 4], &[]] {
            assert!(recovered(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn not_recovering_needs_one_of_the_contracts_reasons() {
        let answer = |place: Place, forgetful: bool| {
            let mut truth = truth_of_five();
            truth.evictions = u64::from(forgetful);
            let said = Said { at: at(5), replay: 5, recovered: Some(false) };
            let replay = truth.begin_replay(1, "r", Wish::Since(Stand::At(place), None), said).unwrap();
            (0..5).for_each(|id| assert!(truth.replayed(replay, at(id + 1), id).is_ok()));
            truth.judge_replays()
        };
        assert!(answer(at(2), false).is_err());
        assert_eq!(answer(at(9), false), Ok(()), "a position that is not known here");
        assert_eq!(answer(at(2), true), Ok(()), "rooms were forgotten");
    }

    #[test]
    fn a_page_with_a_hole_or_a_wrong_more_is_caught() {
        let page = |range: Range, seen: &[u64], more: bool| {
            let mut truth = truth_of_five();
            let question = Question { room: "r".into(), range, limit: 2, known: Some(at(5)) };
            let seen = seen.iter().map(|id| (at(id + 1), *id)).collect();
            truth.pages.push(Page { session: 1, question, more, seen, forgetful: false, read_ms: 0 });
            truth.judge_replays()
        };
        assert_eq!(page(Range::Newest, &[3, 4], true), Ok(()));
        assert_eq!(page(Range::Before(at(3)), &[0, 1], false), Ok(()));
        assert_eq!(page(Range::After(at(3)), &[3, 4], false), Ok(()));
        for (range, seen, more) in [
            (Range::Newest, &[2, 4][..], true),
            (Range::Newest, &[2, 3], true),
            (Range::Newest, &[3, 4], false),
            (Range::Newest, &[4], true),
            (Range::Newest, &[], false),
            (Range::Before(at(3)), &[0, 1], true),
            (Range::Before(at(3)), &[1, 2], true),
            (Range::After(at(3)), &[3], false),
            (Range::After(at(3)), &[], false),
            (Range::BeforeElsewhere, &[0], false),
        ] {
            assert!(page(range, seen, more).is_err(), "{range:?} {seen:?} {more}");
        }
    }
}
