//! Contract of the store: revocations.

use crate::store::{World, contract, user};

contract!(the_latest_revocation_of_each_user_is_kept);

async fn the_latest_revocation_of_each_user_is_kept(world: World) {
    let store = &world.store;
    assert_eq!(store.revocations(None, 10).await.expect("read"), []);
    for (name, revoked_s) in [("b", 20), ("a", 30), ("b", 10), ("a", 40), ("c", 5)] {
        store.keep_revocation(&user(name), revoked_s).await.expect("kept");
    }
    let first = store.revocations(None, 2).await.expect("read");
    assert_eq!(first, [(user("a"), 40), (user("b"), 20)]);
    assert_eq!(store.revocations(Some(&user("b")), 2).await.expect("read"), [(user("c"), 5)]);
    assert_eq!(store.prune_revocations(20).await.expect("pruned"), 1);
    assert_eq!(store.revocations(None, 10).await.expect("read"), first);
}
