//! What answers requests: the second half of the network.

use std::{sync::Arc, time::Duration};

use crate::{
    Code, Failure,
    message::{ProfileName, Request},
};

/// The half of the network that runs on the server, or on the device when the link is gone.
///
/// A tail is pure: the same request gives the same answer. A client relies on that when it sends a
/// request again whose answer was lost. One with state keeps it in [`Streams`](crate::Streams), which know a step that is
/// sent again.
pub trait Tail: Send + Sync {
    /// The models and cuts served; asked once, when serving begins.
    fn routes(&self) -> Vec<String>;

    /// Answers one request for one of the routes by appending to `reply`, which comes empty.
    ///
    /// Called from many threads at once. A panic becomes a failure with [`Code::Internal`].
    ///
    /// # Errors
    /// The failure to tell the client; the connection stays open.
    fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure>;

    /// Most requests that [`answer_batch`](Tail::answer_batch) takes at a time; 1 never batches.
    fn max_batch(&self) -> usize {
        1
    }

    /// Answers several requests for one route, of any clients: `replies` come empty, one for each,
    /// and the results are in the same order. Answers one by one unless implemented otherwise.
    fn answer_batch(&self, requests: &[Request<'_>], replies: &mut [Vec<u8>]) -> Vec<Result<Work, Failure>> {
        requests.iter().zip(replies).map(|(request, reply)| self.answer(request, reply)).collect()
    }

    /// Whether profiles are taken; a server says so in its welcome.
    fn takes_profiles(&self) -> bool {
        false
    }

    /// Whether frames may name this profile.
    fn has_profile(&self, _name: &ProfileName) -> bool {
        false
    }

    /// Takes a profile that a client offers; its bytes are known to hash to `name`.
    ///
    /// # Errors
    /// The failure to tell the client.
    fn take_profile(&self, _name: &ProfileName, _contents: &[u8]) -> Result<(), Failure> {
        Err(Failure::new(Code::BadProfile, "no profiles are taken here"))
    }
}

/// What a tail did for one request. Only the times travel; the rest is for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Decoding the frame.
    pub decode: Duration,
    /// Running the tail.
    pub tail: Duration,
    /// Bytes of the tensor that the frame held; 0 if unknown.
    pub tensor_bytes: u64,
    /// Bits per symbol that the frame was quantised to, if it was and this is known.
    pub bits: Option<u8>,
}

/// A pointer to a tail is a tail.
macro_rules! delegate {
    ($($pointer:ty),*) => {$(
        impl<T: Tail + ?Sized> Tail for $pointer {
            fn routes(&self) -> Vec<String> {
                (**self).routes()
            }

            fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
                (**self).answer(request, reply)
            }

            fn max_batch(&self) -> usize {
                (**self).max_batch()
            }

            fn answer_batch(
                &self,
                requests: &[Request<'_>],
                replies: &mut [Vec<u8>],
            ) -> Vec<Result<Work, Failure>> {
                (**self).answer_batch(requests, replies)
            }

            fn takes_profiles(&self) -> bool {
                (**self).takes_profiles()
            }

            fn has_profile(&self, name: &ProfileName) -> bool {
                (**self).has_profile(name)
            }

            fn take_profile(&self, name: &ProfileName, contents: &[u8]) -> Result<(), Failure> {
                (**self).take_profile(name, contents)
            }
        }
    )*};
}

delegate!(Arc<T>, Box<T>);
