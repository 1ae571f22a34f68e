//! The wire between the two halves of a split network.
//!
//! The device runs the *head* and holds a [`Client`]; the server runs the *tail* behind a `Server`,
//! which calls a [`Tail`] for every request. What travels is an opaque frame: this crate knows
//! nothing of tensors.
//!
#![cfg_attr(feature = "server", doc = "```")]
#![cfg_attr(not(feature = "server"), doc = "```ignore")]
//! use narrows_link::{Client, Failure, Limits, Options, Request, Server, Tail, Work};
//!
//! struct Echo;
//! impl Tail for Echo {
//!     fn routes(&self) -> Vec<String> { vec!["echo".into()] }
//!     fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Work, Failure> {
//!         reply.extend_from_slice(request.payload);
//!         Ok(Work::default())
//!     }
//! }
//!
//! let server = Server::bind("127.0.0.1:0", Limits::default())?.spawn(Echo)?;
//! let mut client = Client::connect(server.local_addr(), Options::default())?;
//! assert_eq!(client.request("echo", b"a frame")?.payload, b"a frame");
//! drop(client);
//! server.stop()?;
//! # Ok::<(), narrows_link::Error>(())
//! ```
//!
//! - [`message`]: the messages and their bytes; the normative text is `docs/protocol.md`
//! - [`adapt`]: how to send the next frame, from how the last ones fared
//! - `tls` (feature `tls`): certificates and keys
//! - `Server`, `Settings` (feature `server`): the server, on tokio
//! - `http` (feature `http`): KServe v2, health, metrics and the live page of that server
//! - `emulator` (feature `emulator`): a link of a given rate, delay and faults, as a model and as a
//!   proxy
//!
//! Without features there is what a device needs: the protocol and the client, with blocking sockets
//! and no threads. Whatever bytes a peer sends, the answer is a typed [`Error`], and memory is taken
//! only for bytes that came and that the limits allow.

#![forbid(unsafe_code)]

pub mod adapt;
mod client;
#[cfg(feature = "emulator")]
pub mod emulator;
mod error;
mod failure;
#[cfg(feature = "http")]
pub mod http;
pub mod message;
#[cfg(feature = "server")]
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only HTTP shows what is counted"))]
mod server;
mod socket;
mod step;
mod streams;
mod tail;
#[cfg(feature = "tls")]
pub mod tls;

pub use client::{Answer, Backoff, Call, Client, Fallback, Options, Origin, Pipeline, Record, Token};
pub use error::Error;
pub use failure::{Code, FIRST_APPLICATION_CODE, Failure, MAX_FAILURE_TEXT_BYTES};
pub use message::{ProfileName, Request, Timings};
#[cfg(feature = "server")]
pub use server::{Batching, Handle, Limits, Running, Server, ServerOptions, Settings, Source};
pub use step::{MAX_TENSORS, Output, Outputs, Place, SplitId, Step, StreamId};
pub use streams::{StreamLimits, Streams};
pub use tail::{Tail, Work};

/// The default for the longest request and response, header included: 64 MiB.
pub const DEFAULT_MAX_MESSAGE_BYTES: u32 = 64 << 20;

/// What this crate calls itself in hello and welcome.
const SOFTWARE: &str = concat!("narrows-link ", env!("CARGO_PKG_VERSION"));
