//! The sending end of a connection.

use std::{
    io::IoSlice,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc::UnboundedReceiver,
    time::timeout,
};

use super::{
    connection::Place,
    stats::{Stage, Stats},
};
use crate::{Error, message::Message};

/// A message ready to be sent.
pub(super) struct Outgoing {
    /// All but the payload.
    pub(super) head: Vec<u8>,
    pub(super) payload: Vec<u8>,
    /// What an answered request holds until it has been sent.
    pub(super) place: Option<Place>,
}

/// Sends messages, each with one vectored system call where the stream takes it whole.
#[derive(Debug)]
pub(super) struct Outlet<W> {
    stream: W,
}

impl<W: AsyncWrite + Unpin> Outlet<W> {
    pub(super) fn new(stream: W) -> Outlet<W> {
        Outlet { stream }
    }

    /// Sends answers as they become ready, until no more can come.
    pub(super) async fn send_all(
        &mut self,
        mut outgoing: UnboundedReceiver<Outgoing>,
        limit: Duration,
        stats: &Stats,
    ) -> Result<(), Error> {
        while let Some(message) = outgoing.recv().await {
            let start = Instant::now();
            self.send(&message.head, &message.payload, limit).await?;
            if message.place.is_some() {
                stats.stage(Stage::Send, start.elapsed());
            }
        }
        Ok(())
    }

    /// Sends one message without payload.
    pub(super) async fn say(&mut self, message: &Message<'_>, limit: Duration) -> Result<(), Error> {
        let mut bytes = Vec::new();
        message.write_into(&mut bytes, 0)?;
        self.send(&bytes, &[], limit).await
    }

    async fn send(&mut self, mut head: &[u8], mut payload: &[u8], limit: Duration) -> Result<(), Error> {
        let sending = async {
            while !(head.is_empty() && payload.is_empty()) {
                let slices = [IoSlice::new(head), IoSlice::new(payload)];
                match self.stream.write_vectored(&slices).await {
                    Ok(0) => return Err(Error::Closed),
                    Ok(count) => {
                        let of_head = count.min(head.len());
                        head = &head[of_head..];
                        payload = &payload[count - of_head..];
                    }
                    Err(error) => return Err(Error::io("sending")(error)),
                }
            }
            self.stream.flush().await.map_err(Error::io("sending"))
        };
        timeout(limit, sending).await.unwrap_or(Err(Error::Deadline { what: "sending", limit }))
    }

    /// Sends no more.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        self.stream.shutdown().await.map_err(Error::io("closing"))
    }
}
