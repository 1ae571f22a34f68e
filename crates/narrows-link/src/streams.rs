//! What a tail keeps of streams between their steps, within bounds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    Code, Failure,
    step::{Place, StreamId},
};

/// What a tail keeps of streams at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Streams at a time; another one is refused with [`Code::Busy`].
    pub max_streams: usize,
    /// Bytes of all their state and last answers. Once there are more, steps are refused with [`Code::Busy`] until streams
    /// have ended; a step that is being computed is not, so there may be as much more as the workers' steps add.
    pub max_bytes: u64,
    /// A stream without a step for so long is forgotten; its next step is refused with [`Code::StreamGone`].
    pub idle_timeout: Duration,
}

impl Default for StreamLimits {
    fn default() -> StreamLimits {
        StreamLimits { max_streams: 256, max_bytes: 1 << 30, idle_timeout: Duration::from_mins(5) }
    }
}

/// The state of streams.
///
/// Steps of one stream run one after the other, in the order of their numbers. The last one may be sent again, if its
/// answer was lost: it gets the same answer and is not computed twice, so a client can ask again for a step as it can for a
/// request without state, on another connection too.
#[derive(Debug)]
pub struct Streams<S> {
    limits: StreamLimits,
    table: Mutex<Table<S>>,
}

#[derive(Debug)]
struct Table<S> {
    streams: HashMap<StreamId, Entry<S>>,
    /// Of all streams.
    bytes: u64,
}

#[derive(Debug)]
struct Entry<S> {
    stream: Shared<S>,
    /// Of state and last answer.
    bytes: u64,
    state_bytes: u64,
    used: Instant,
}

type Shared<S> = Arc<Mutex<Stream<S>>>;

/// A stream, locked while a step of it runs.
#[derive(Debug)]
struct Stream<S> {
    state: S,
    /// Steps that were answered.
    steps: u32,
    /// To the last of them.
    answer: Vec<u8>,
}

impl<S> Streams<S> {
    /// No streams yet.
    pub fn new(limits: StreamLimits) -> Streams<S> {
        Streams { limits, table: Mutex::new(Table { streams: HashMap::new(), bytes: 0 }) }
    }

    /// Streams that are kept.
    pub fn len(&self) -> usize {
        self.table().streams.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that are kept, of state and last answers.
    pub fn bytes(&self) -> u64 {
        self.table().bytes
    }

    /// Of these, bytes of state.
    pub fn state_bytes(&self) -> u64 {
        self.table().streams.values().map(|entry| entry.state_bytes).sum()
    }

    /// Takes a step: `open` gives the state before the first one, `run` changes the state, appends to the answer and says how
    /// many bytes the state has now. After an error of `run` the state must be as it was before. `None` if the step had been
    /// taken before: then the answer is that of the first time.
    ///
    /// # Errors
    /// [`Code::StreamGone`] for a step of a stream that is not kept, or whose turn it is not; [`Code::Busy`] at the limits;
    /// else what `open` and `run` say.
    pub fn step<T>(
        &self,
        place: Place,
        answer: &mut Vec<u8>,
        open: impl FnOnce() -> Result<S, Failure>,
        run: impl FnOnce(&mut S, &mut Vec<u8>) -> Result<(T, u64), Failure>,
    ) -> Result<Option<T>, Failure> {
        let (stream, is_full) = self.enter(place, open)?;
        // A step that panicked has left nobody knows what.
        let mut locked = stream.lock().map_err(|_| self.break_off(place.stream))?;
        let Stream { state, steps, answer: last } = &mut *locked;
        if steps.checked_sub(1) == Some(place.number) {
            answer.extend_from_slice(last);
            return Ok(None);
        }
        if *steps != place.number {
            let text = format!("step {} of stream {}, whose next is {steps}", place.number, place.stream);
            return Err(Failure::new(Code::StreamGone, text));
        }
        if is_full {
            return Err(busy(format!("streams hold {} bytes, no more are kept", self.limits.max_bytes)));
        }
        let begin = answer.len();
        let (result, state_bytes) = run(state, answer)?;
        *steps += 1;
        last.clear();
        last.extend_from_slice(&answer[begin..]);
        self.kept(place.stream, state_bytes, last.len() as u64);
        Ok(Some(result))
    }

    /// Forgets a stream, known or not.
    pub fn end(&self, stream: StreamId) {
        self.table().forget(stream);
    }

    /// The stream of a step, which the first step makes, and whether all of them hold as much as they may.
    fn enter(
        &self,
        Place { stream, number, .. }: Place,
        open: impl FnOnce() -> Result<S, Failure>,
    ) -> Result<(Shared<S>, bool), Failure> {
        let mut table = self.table();
        let now = Instant::now();
        table.forget_idle(now, self.limits.idle_timeout);
        let is_full = table.bytes >= self.limits.max_bytes;
        if let Some(entry) = table.streams.get_mut(&stream) {
            entry.used = now;
            return Ok((Arc::clone(&entry.stream), is_full));
        }
        if number > 0 {
            let text = format!("stream {stream} is not kept here: it was idle, or began on another server");
            return Err(Failure::new(Code::StreamGone, text));
        }
        if is_full || table.streams.len() >= self.limits.max_streams {
            let (streams, bytes) = (table.streams.len(), table.bytes);
            return Err(busy(format!("{streams} streams hold {bytes} bytes, there is no room for another")));
        }
        let new = Arc::new(Mutex::new(Stream { state: open()?, steps: 0, answer: Vec::new() }));
        table.streams.insert(stream, Entry { stream: Arc::clone(&new), bytes: 0, state_bytes: 0, used: now });
        Ok((new, false))
    }

    fn kept(&self, stream: StreamId, state_bytes: u64, answer_bytes: u64) {
        let mut table = self.table();
        let bytes = state_bytes + answer_bytes;
        // It may have been ended meanwhile.
        if let Some(entry) = table.streams.get_mut(&stream) {
            let before = std::mem::replace(&mut entry.bytes, bytes);
            entry.state_bytes = state_bytes;
            entry.used = Instant::now();
            table.bytes = table.bytes - before + bytes;
        }
    }

    fn break_off(&self, stream: StreamId) -> Failure {
        self.end(stream);
        Failure::new(Code::StreamGone, format!("a step of stream {stream} broke down, and its state with it"))
    }

    fn table(&self) -> MutexGuard<'_, Table<S>> {
        // Nothing panics while it is locked but `open`, before anything has changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Table<S> {
    fn forget(&mut self, stream: StreamId) {
        if let Some(entry) = self.streams.remove(&stream) {
            self.bytes -= entry.bytes;
        }
    }

    fn forget_idle(&mut self, now: Instant, timeout: Duration) {
        let is_idle = |entry: &Entry<S>| {
            // While a step runs somebody else has the stream, too.
            now.saturating_duration_since(entry.used) > timeout && Arc::strong_count(&entry.stream) == 1
        };
        let idle: Vec<_> =
            self.streams.iter().filter(|(_, entry)| is_idle(entry)).map(|(id, _)| *id).collect();
        idle.into_iter().for_each(|stream| self.forget(stream));
    }
}

fn busy(text: String) -> Failure {
    Failure::new(Code::Busy, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose state is the sum of what came.
    fn add(streams: &Streams<u64>, stream: StreamId, number: u32, summand: u64) -> Result<Vec<u8>, Failure> {
        let mut answer = Vec::new();
        let place = Place { stream, number, ends: false };
        streams.step(
            place,
            &mut answer,
            || Ok(0),
            |sum, answer| {
                if summand == 0 {
                    return Err(Failure::new(Code::TailFailed, "nothing to add"));
                }
                *sum += summand;
                answer.extend(sum.to_le_bytes());
                Ok(((), *sum))
            },
        )?;
        Ok(answer)
    }

    fn sum(answer: Result<Vec<u8>, Failure>) -> u64 {
        u64::from_le_bytes(answer.unwrap().try_into().unwrap())
    }

    fn code(answer: Result<Vec<u8>, Failure>) -> Code {
        answer.unwrap_err().code()
    }

    #[test]
    fn steps_follow_each_other_and_the_last_can_be_asked_for_again() {
        let streams = Streams::new(StreamLimits::default());
        let (one, other) = (StreamId::random(), StreamId::random());
        assert_eq!(sum(add(&streams, one, 0, 5)), 5);
        assert_eq!(sum(add(&streams, other, 0, 100)), 100);
        assert_eq!(sum(add(&streams, one, 1, 7)), 12);
        assert_eq!(sum(add(&streams, one, 1, 7)), 12, "it was not added twice");
        assert_eq!(code(add(&streams, one, 0, 5)), Code::StreamGone);
        assert_eq!(code(add(&streams, one, 3, 5)), Code::StreamGone);
        assert_eq!(code(add(&streams, one, 2, 0)), Code::TailFailed);
        assert_eq!(sum(add(&streams, one, 2, 1)), 13, "the error has left no trace");
        assert_eq!((streams.state_bytes(), streams.bytes()), (13 + 100, 13 + 8 + 100 + 8));
        streams.end(one);
        streams.end(one);
        assert_eq!((streams.len(), streams.bytes()), (1, 108));
        assert_eq!(code(add(&streams, one, 3, 1)), Code::StreamGone);
    }

    #[test]
    fn no_more_is_kept_than_the_limits_say() {
        let limits = StreamLimits { max_streams: 2, max_bytes: 1000, ..StreamLimits::default() };
        let streams = Streams::new(limits);
        let [one, two, three] = std::array::from_fn(|_| StreamId::random());
        sum(add(&streams, one, 0, 1));
        sum(add(&streams, two, 0, 1));
        assert_eq!(code(add(&streams, three, 0, 1)), Code::Busy);
        sum(add(&streams, two, 1, 2000));
        assert_eq!(code(add(&streams, one, 1, 1)), Code::Busy);
        streams.end(two);
        assert_eq!(sum(add(&streams, one, 1, 1)), 2, "there is room again");
    }

    #[test]
    fn a_stream_that_is_idle_is_forgotten() {
        let streams = Streams::new(StreamLimits { idle_timeout: Duration::ZERO, ..StreamLimits::default() });
        let stream = StreamId::random();
        sum(add(&streams, stream, 0, 1));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(code(add(&streams, stream, 1, 1)), Code::StreamGone);
        assert_eq!((streams.len(), streams.bytes()), (0, 0));
    }

    #[test]
    fn a_stream_whose_step_panicked_is_gone() {
        let streams = Streams::<u64>::new(StreamLimits::default());
        let stream = StreamId::random();
        sum(add(&streams, stream, 0, 1));
        let place = Place { stream, number: 1, ends: false };
        let step =
            || streams.step(place, &mut Vec::new(), || Ok(0), |_, _| -> Result<((), u64), _> { panic!() });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(step)).is_err());
        assert_eq!(code(add(&streams, stream, 1, 1)), Code::StreamGone);
        assert_eq!(streams.len(), 0);
    }
}
