//! Charges: how many commands a request counts for, by what it makes (PROTOCOL.md §5). They are drawn on the user's allowance
//! (`USER_COMMANDS_PER_SECOND`); LIMITS.md lists them.

use shared::Command;

/// A command that makes nothing for very many.
const COMMAND: u32 = 1;
/// The most for a change of a message, however many are told of it.
const CHANGE_MAX: u32 = 5;
/// A conversation, before its members are counted.
const CONVERSATION: u32 = 10;
/// Whoever comes, goes or is invited.
pub const MEMBERSHIP: u32 = 5;
/// A password that is checked.
const PASSWORD: u32 = 10;
/// A second of the removal of somebody's messages.
pub const REMOVAL: u32 = 10;
/// The first message to somebody.
const FIRST_MESSAGE: u32 = 5;

/// The charge that is known when the command has been read.
#[must_use]
pub fn of_command(command: &Command) -> u32 {
    match command {
        Command::Join { password, .. } => for_joining(password.is_some()),
        Command::Leave { .. } => MEMBERSHIP,
        Command::Auth { .. }
        | Command::Ping { .. }
        | Command::Send(_)
        | Command::Read { .. }
        | Command::ReadMessage { .. }
        | Command::Delivered { .. }
        | Command::Edit { .. }
        | Command::Delete { .. }
        | Command::ReactionAdd { .. }
        | Command::ReactionRemove { .. }
        | Command::Typing { .. }
        | Command::BlockAdd(_)
        | Command::BlockRemove(_)
        | Command::Broadcast { .. }
        | Command::PresenceQuery { .. } => COMMAND,
    }
}

/// The charge for joining a conversation, with a password or without one.
#[must_use]
pub const fn for_joining(has_password: bool) -> u32 {
    if has_password { PASSWORD } else { MEMBERSHIP }
}

/// The charge for changing a conversation, before its members are counted: a new password is hashed.
#[must_use]
pub const fn for_changing(has_password: bool) -> u32 {
    if has_password { PASSWORD } else { COMMAND }
}

/// The charge for making a conversation with so many members.
#[must_use]
pub fn for_making(members: usize) -> u32 {
    CONVERSATION.saturating_add(per(members, 10))
}

/// The charge for adding so many members.
#[must_use]
pub fn for_adding(users: usize) -> u32 {
    u32::try_from(users.div_ceil(10)).unwrap_or(u32::MAX).max(COMMAND)
}

/// The rest of the charge for an edit, a deletion or a reaction, in a conversation of so many members, and for a change or the
/// end of the conversation itself: it is known only when the change is made.
#[must_use]
pub fn rest_of_change(members: usize) -> u32 {
    per(members, 100).min(CHANGE_MAX - COMMAND)
}

/// The rest of the charge for a message that opened its direct conversation.
#[must_use]
pub const fn rest_of_send(is_first: bool) -> u32 {
    if is_first { FIRST_MESSAGE - COMMAND } else { 0 }
}

fn per(members: usize, each: usize) -> u32 {
    u32::try_from(members / each).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_charged_for_what_it_makes() {
        assert_eq!([0, 9, 10, 499, 10_000].map(for_making), [10, 10, 11, 59, 1_010]);
        assert_eq!([1, 10, 11, 10_000].map(for_adding), [1, 1, 2, 1_000]);
        assert_eq!([2, 99, 100, 399, 400, 100_000].map(rest_of_change), [0, 0, 1, 3, 4, 4]);
        assert_eq!([false, true].map(for_joining), [5, 10]);
        assert_eq!([false, true].map(for_changing), [1, 10]);
        assert_eq!([false, true].map(rest_of_send), [0, 4]);
        let conversation = "c".parse().expect("an id");
        assert_eq!(of_command(&Command::Leave { conversation }), 5);
        assert_eq!(of_command(&Command::Ping { timestamp: None }), 1);
    }
}
