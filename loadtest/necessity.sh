#!/usr/bin/env bash
# Shows that each mechanism of gateway/NOLOSS.md is necessary: a test that fails when it is switched off.
#
#   loadtest/necessity.sh [SWITCH…]
#
# Builds the gateway's tests once, runs the tests below with everything on (all must pass), then each with one mechanism off
# (PARLEY_OFF, which only debug builds know), and expects it to fail. All switches if none is named. Ends with a table; the
# exit code is 0 only if every test failed that should. Takes some ten minutes. Debian packages: redis-server postgresql.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Switch (in the sources: switches::off("…")) and test. A test of the gateway compares the first column with the sources.
pairs() {
  cat <<'PAIRS'
gate                noloss::heal::a_gap_is_healed_at_once
once                noloss::epoch::a_socket_is_given_each_event_once
gap-heal            noloss::heal::a_gap_is_healed_at_once
reconnect-heal      noloss::epoch::after_a_lost_subscription_every_user_is_healed
doubt               noloss::epoch::events_of_a_log_that_was_begun_anew_unheard_come_under_its_epoch
log-check           noloss::heal::silent_loss_is_found_without_a_new_event
opened-line         noloss::heal::a_log_that_vanishes_under_a_subscription_is_told_as_a_resync
opened-line         noloss::heal::a_log_that_another_device_opens_anew_is_announced
epoch-resync        noloss::heal::a_log_that_was_begun_anew_unseen_is_found
hole-resync         noloss::two_nodes::a_log_with_a_hole_of_its_own_is_told_as_trimmed
recent              noloss::outbox::an_uncertain_publication_is_not_repeated_when_redis_comes_back_empty
direct-position     noloss::two_nodes::while_redis_is_frozen_messages_are_delivered_directly_and_once
companions          noloss::resume::a_resume_from_n_repeats_the_companions_of_n
count-membership    unread::ends::a_membership_that_ends_takes_its_counts_along_on_redis
resume-check        backbone::contract::on_redis::logs_are_read_in_pages_and_trimmed
sweep               noloss::outbox::rows_of_a_dead_node_are_published_once_and_those_of_a_living_one_left_alone
append-once         noloss::outbox::a_redo_of_what_was_published_tells_nobody
marker              backbone::contract::on_redis::messages_that_the_log_can_not_decide_get_a_marker
hot-log             backbone::faults::a_log_keeps_its_last_seconds
narrow              noloss::outbox::a_row_is_narrowed_to_those_who_lack_it
same-connection     noloss::outbox::what_was_begun_on_an_earlier_connection_is_left_to_the_sweep
lease               noloss::outbox::without_its_lease_a_node_publishes_nothing
fence               backbone::faults::a_fence_ends_the_connections_of_an_owner
server-watch        backbone::faults::a_log_of_another_server_is_begun_anew
retire              noloss::left_behind::what_is_published_on_a_server_that_was_left_is_published_again
open-logs           backbone::faults::a_killed_server_that_comes_back_empty
members-version     noloss::outbox::members_that_changed_unheard_are_noticed_by_the_next_message
members-then        noloss::outbox::what_is_published_late_goes_to_the_members_of_then
webhook-owed        events_webhook::on_sqlite::a_receiver_that_fails_for_an_hour_gets_everything_afterwards
temp-id             noloss::two_nodes::the_same_temp_id_on_two_nodes_is_one_message
batch-retry         store::group_commit::an_uncertain_commit_is_never_doubled
busy-conversations  store::busy::a_locked_conversation_stops_nobody_else
future-stamps       store::outbox::on_postgres::stamps_in_the_future_are_due_and_leases_have_ended
one-by-one          store::group_commit::on_postgres::a_message_that_cannot_be_stored_fails_alone
linger              backbone::contract::on_redis::subscriptions_are_counted_and_linger
linger-ends         backbone::contract::on_redis::who_has_left_is_pushed_to_at_once
slow-consumer       noloss::sockets::a_slow_consumer_costs_only_itself
room                noloss::resume::a_backlog_larger_than_the_queue_comes_in_portions
order               noloss::side_by_side::what_depends_on_a_command_before_it_works_without_waiting_for_its_answer
turnover            limits::turnover::joins_and_leaves_cost_members_logs_little
turns               noloss::sockets::connections_that_can_not_join_are_sent_away_at_different_times
revocation          noloss::sockets::a_revocation_reaches_every_node_within_a_second
drain-answer        noloss::sockets::a_send_that_is_under_way_is_acknowledged_before_the_close
topic-heal noloss::large::a_lost_publication_is_read_from_the_store
topic-check noloss::large::silent_loss_is_found_by_comparing_with_the_store
topic-unaware noloss::large::who_can_not_go_on_is_told_so
PAIRS
}

# The longest that a test may take, in seconds: without its mechanism it may wait for ever.
readonly SECONDS_MAX=90

main() {
  local binary switch test failed=0
  binary=$(cargo test --quiet --workspace --test it --no-run --message-format=json |
    sed -n 's/.*"name":"it".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
  [[ -x $binary ]] || { echo "the tests could not be built" >&2; exit 1; }
  cd gateway

  mapfile -t chosen < <(pairs | while read -r switch test; do
    if [[ $# -eq 0 || " $* " == *" $switch "* ]]; then echo "$switch $test"; fi
  done)
  [[ ${#chosen[@]} -gt 0 ]] || { echo "no such switch: $*" >&2; exit 2; }

  echo "with everything on: ${#chosen[@]} tests"
  mapfile -t tests < <(printf '%s\n' "${chosen[@]}" | cut -d' ' -f2 | sort -u)
  "$binary" --exact "${tests[@]}" >"$output" 2>&1 || { tail -n 40 "$output"; echo "a test fails as it is" >&2; exit 1; }
  grep -q "^running ${#tests[@]} tests\?$" "$output" || { echo "not every test is there" >&2; exit 1; }

  for pair in "${chosen[@]}"; do
    read -r switch test <<<"$pair"
    if fails_without "$switch" "$test"; then
      printf '%-18s needed by %s\n' "$switch" "$test"
    else
      printf '%-18s NOT NEEDED by %s\n' "$switch" "$test"
      failed=$((failed + 1))
    fi
  done
  echo "${#chosen[@]} pairs, $failed not shown"
  [[ $failed -eq 0 ]]
}

# Whether the test fails, or doesn't end, with the mechanism off.
fails_without() {
  ! PARLEY_OFF=$1 timeout --kill-after=5 "$SECONDS_MAX" "$binary" --exact "$2" >"$output" 2>&1
}

output=$(mktemp)
trap 'rm -f "$output"' EXIT
main "$@"
