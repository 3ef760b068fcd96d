//! The users of a mixed load: connected by a socket or a stream, and what comes to them goes to the tally.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use shared::UserId;
use tokio::task::JoinSet;

use super::plan::has_stream;
use super::tally::SharedTally;
use crate::modes::{link, with};
use crate::speech::{kind, message_number};
use crate::sse::Stream;
use crate::target::Target;
use crate::ws::{Reader, Writer};

/// A user who is online all the time.
pub(super) struct Member {
    pub(super) user: UserId,
    pub(super) partner: UserId,
    pub(super) way: Way,
}

/// How a user is connected, and sends.
pub(super) enum Way {
    Socket(Arc<Writer>),
    /// Receives by a stream, and sends over REST with this token.
    Stream(Arc<str>),
}

/// Where a user hears what comes.
enum Ear {
    Socket(Reader, Arc<Writer>),
    Stream(Stream),
}

/// Connects so many users, of whom so many in a hundred have a stream.
pub(super) async fn connect(
    target: &Target,
    (users, stream_share): (usize, u32),
    tally: &SharedTally,
    readers: &mut JoinSet<()>,
) -> Result<Vec<Member>> {
    let opening = stream::iter(0..users).map(|number| async move {
        let (user, token) = target.user(number)?;
        let (partner, _) = target.user(number ^ 1)?;
        if has_stream(number, stream_share) {
            let opened = link::open_stream(target, number, &token).await.with_context(|| format!("user {number}"))?;
            return Ok((Ear::Stream(opened), Member { user, partner, way: Way::Stream(token.into()) }));
        }
        let opened = link::open(target, number, (&user, &token), None).await;
        let (reader, writer) = opened.with_context(|| format!("user {number}"))?;
        let writer = Arc::new(writer);
        anyhow::Ok((Ear::Socket(reader, Arc::clone(&writer)), Member { user, partner, way: Way::Socket(writer) }))
    });
    let opened: Vec<(Ear, Member)> = opening.buffered(64).try_collect().await?;
    let take = |(number, (ear, member)): (usize, (Ear, Member))| {
        readers.spawn(hear(ear, number, Arc::clone(tally)));
        member
    };
    Ok(opened.into_iter().enumerate().map(take).collect())
}

/// Gives everything that comes to a user to the tally, until the connection ends.
async fn hear(ear: Ear, number: usize, tally: SharedTally) {
    match ear {
        Ear::Socket(reader, writer) => {
            let take = |frame: &[u8]| {
                with(&tally, |tally| tally.take(number, frame));
                Ok(())
            };
            link::listen(reader, &writer, take).await;
        }
        Ear::Stream(stream) => {
            let take = |frame: &[u8]| match (kind(frame), message_number(frame)) {
                // The answer over REST has counted.
                ("message.sent", Some(_)) => {}
                (of, numbered) => with(&tally, |tally| {
                    tally.stream_deliveries += u64::from(of == "message.new" && numbered.is_some());
                    tally.take(number, frame);
                }),
            };
            link::listen_stream(stream, take).await;
        }
    }
    with(&tally, |tally| tally.lost += 1);
}
