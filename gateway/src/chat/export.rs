//! What is kept of a user, line by line, for the user: each line is a JSON object with a `type`.

use serde_json::{Value, json};
use shared::{ProtocolError, UserId};

use super::Chat;
use crate::store::{AuthorPlace, Authored, Names, WalkPlace};

/// Items of one page.
const PAGE: u32 = 100;

/// The part of an export that comes next.
#[derive(Debug, Clone)]
pub enum ExportPlace {
    /// The user.
    User,
    /// Blocks, behind this user.
    Blocks(Option<UserId>),
    /// Conversations.
    Conversations(Option<WalkPlace>),
    /// Messages.
    Messages(Option<AuthorPlace>),
    /// Notifications, behind so many.
    Notifications(u64),
    /// The line that says that it is whole.
    End,
}

impl Chat {
    /// The next lines of an export, and where it goes on; `None` behind the last. Lines end with a line end.
    pub async fn export(
        &self,
        user: &UserId,
        place: ExportPlace,
    ) -> Result<(String, Option<ExportPlace>), ProtocolError> {
        let mut lines = Vec::new();
        let next = match place {
            ExportPlace::User => {
                let named = self.store.names_of(std::slice::from_ref(user)).await?.into_iter().next();
                let Names { username, shown } = named.map(|(_, names)| names).unwrap_or_default();
                lines.push(json!({ "type": "user", "userId": user, "username": username, "name": shown }));
                Some(ExportPlace::Blocks(None))
            }
            ExportPlace::Blocks(after) => {
                let page = self.store.blocked_by(user, after.as_ref(), PAGE).await?;
                lines.extend(page.iter().map(|other| json!({ "type": "block", "userId": other })));
                Some(match page.last().filter(|_| is_full(page.len())) {
                    Some(last) => ExportPlace::Blocks(Some(last.clone())),
                    None => ExportPlace::Conversations(None),
                })
            }
            ExportPlace::Conversations(place) => {
                let page = self.store.conversations(user, place.as_ref(), PAGE).await?;
                let line = |conversation| json!({ "type": "conversation", "conversation": conversation });
                lines.extend(page.items.into_iter().map(line));
                Some(match page.next {
                    Some(place) => ExportPlace::Conversations(Some(place)),
                    None => ExportPlace::Messages(None),
                })
            }
            ExportPlace::Messages(place) => {
                let of = Authored { user: user.clone(), conversation: None, since: None };
                let page = self.store.authored(&of, place.as_ref()).await?;
                lines.extend(page.messages.into_iter().map(|message| json!({ "type": "message", "message": message })));
                Some(match page.next {
                    Some(place) => ExportPlace::Messages(Some(place)),
                    None => ExportPlace::Notifications(0),
                })
            }
            ExportPlace::Notifications(offset) => {
                let page = self.store.notifications(user, offset, PAGE).await?;
                for kept in &page {
                    let payload: Value = serde_json::from_str(&kept.payload).unwrap_or_default();
                    let times = (kept.created_at, kept.read_at);
                    lines.push(json!({
                        "type": "notification", "notificationId": kept.id, "payload": payload, "createdAt": times.0,
                        "readAt": times.1,
                    }));
                }
                Some(match is_full(page.len()) {
                    true => ExportPlace::Notifications(offset + u64::from(PAGE)),
                    false => ExportPlace::End,
                })
            }
            ExportPlace::End => {
                lines.push(json!({ "type": "end" }));
                None
            }
        };
        Ok((lines.iter().map(|line| format!("{line}\n")).collect(), next))
    }
}

fn is_full(count: usize) -> bool {
    count >= usize::try_from(PAGE).unwrap_or(usize::MAX)
}
