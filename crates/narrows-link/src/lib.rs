//! The wire between the two halves of a split network.
//!
//! The device runs the *head* and holds a [`Client`]; the server runs the *tail* behind a
//! [`Server`], which calls a [`Tail`] for every request. What travels is an opaque frame: this
//! crate knows nothing of tensors. Blocking sockets and threads, one thread per connection.
//!
//! ```
//! use narrows_link::{Client, Failure, Limits, Options, Request, Server, Tail, Timings};
//!
//! struct Echo;
//! impl Tail for Echo {
//!     fn routes(&self) -> Vec<String> { vec!["echo".into()] }
//!     fn answer(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> Result<Timings, Failure> {
//!         reply.extend_from_slice(request.payload);
//!         Ok(Timings::default())
//!     }
//! }
//!
//! let server = Server::bind("127.0.0.1:0", Limits::default())?.spawn(Echo)?;
//! let mut client = Client::connect(server.local_addr(), Options::default())?;
//! assert_eq!(client.request("echo", b"a frame")?.payload, b"a frame");
//! server.stop()?;
//! # Ok::<(), narrows_link::Error>(())
//! ```
//!
//! - [`message`]: the messages and their bytes; the normative text is `docs/protocol.md`
//! - [`adapt`]: how to send the next frame, from how the last ones fared
//! - [`emulator`]: a link of a given rate, delay and jitter, as a model and as a proxy
//!
//! A session is one client and one server taking turns. Whatever bytes a peer sends, the answer is
//! a typed [`Error`], and memory is taken only for bytes that came and that the limits allow.

#![forbid(unsafe_code)]

pub mod adapt;
mod client;
pub mod emulator;
mod error;
mod failure;
pub mod message;
mod registry;
mod server;
mod socket;

pub use client::{Answer, Client, Options};
pub use error::Error;
pub use failure::{Code, FIRST_APPLICATION_CODE, Failure, MAX_FAILURE_TEXT_BYTES};
pub use message::{Request, Timings};
pub use server::{Handle, Limits, Running, Server, Tail};

/// The default for the longest request and response, header included: 64 MiB.
pub const DEFAULT_MAX_MESSAGE_BYTES: u32 = 64 << 20;

/// What this crate calls itself in hello and welcome.
const SOFTWARE: &str = concat!("narrows-link ", env!("CARGO_PKG_VERSION"));
