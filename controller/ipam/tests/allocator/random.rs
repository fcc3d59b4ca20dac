//! Random histories: users, administrators, lagging watches, writes in any order, refused writes, restarts.
//!
//! At every moment `World::check` must hold; at the end, when all is told and done, `model::check_quiet`.

use std::net::IpAddr;

use herald_ipam::{
    Addresses, Claim, Exposure, Families, Family, FamilyPolicy, PoolSpec, ReclaimPolicy, SharingKey,
    SharingPreference, SharingScope, Wanted,
};
use proptest::prelude::*;

use crate::model;
use crate::world::*;

#[derive(Clone, Debug)]
enum Step {
    Create { service: usize, age: i64, families: Families, wanted: Wanted, exposure: Exposure },
    Delete { service: usize },
    Toggle { service: usize },
    Ask { service: usize, families: Families, wanted: Wanted },
    Expose { service: usize, exposure: Exposure },
    EditPool { pool: usize, shape: usize },
    DeletePool { pool: usize },
    Reserve { address: IpAddr, service: usize },
    ReserveForKey { address: IpAddr, namespace: &'static str },
    DeleteLbip { address: IpAddr },
    StatusByHand { service: usize, shown: Vec<IpAddr> },
    Deliver { kind: usize },
    Work { job: usize },
    Refuse { job: usize },
    Restart { finished: u8 },
    Retry,
}

const SERVICE_NAMES: [&str; 6] = ["a", "b", "c", "d", "other/e", "other/f"];

const SHAPES: usize = 6;

/// Pools that never overlap, each in several shapes; the first shape is what the world begins with.
fn pool_shape(which: usize, shape: usize) -> PoolSpec {
    let retaining = |spec| PoolSpec { reclaim: ReclaimPolicy::Retain, ..spec };
    let open = |spec| PoolSpec { sharing_scope: SharingScope::Cluster, ..spec };
    let limited = |spec| PoolSpec { limit_per_namespace: Some(1), ..spec };
    let preferring = |spec| PoolSpec { sharing: SharingPreference::Prefer, ..spec };
    match (which, shape % SHAPES) {
        (0, 0) => pool("p", &["10.0.0.3-10.0.0.5", "10.0.0.1", "fd00::1-fd00::2"]),
        (0, 1) => pool("p", &["10.0.0.4-10.0.0.5", "fd00::2"]),
        (0, 2) => pool("p", &["10.0.0.1-10.0.0.5"]),
        (0, 3) => limited(pool("p", &["10.0.0.3-10.0.0.5", "10.0.0.1", "fd00::1"])),
        (0, 4) => open(preferring(pool("p", &["10.0.0.3-10.0.0.4", "fd00::1"]))),
        (0, _) => retaining(pool("p", &["10.0.0.1-10.0.0.5", "fd00::1-fd00::3"])),
        (_, 0) => pool("q", &["10.0.1.0/31"]),
        (_, 1) => PoolSpec { auto_assign: false, ..pool("q", &["10.0.1.0/31", "fd00:1::1"]) },
        (_, 2) => {
            PoolSpec { excluded: vec!["10.0.1.1".into()], ..pool("q", &["fd00:1::/127", "10.0.1.0/30"]) }
        }
        (_, 3) => open(pool("q", &["10.0.1.0"])),
        (_, 4) => preferring(limited(retaining(pool("q", &["10.0.1.0/31", "fd00:1::1"])))),
        (_, _) => PoolSpec { avoid_buggy_ips: true, ..pool("q", &["10.0.1.0/31"]) },
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec![
        ip("10.0.0.1"),
        ip("10.0.0.3"),
        ip("10.0.0.4"),
        ip("10.0.1.0"),
        ip("10.0.1.1"),
        ip("fd00::1"),
        ip("fd00::2"),
        ip("172.16.0.1"),
    ])
}

fn families() -> impl Strategy<Value = Families> {
    let policy = prop_oneof![
        3 => Just(FamilyPolicy::SingleStack),
        2 => Just(FamilyPolicy::PreferDualStack),
        1 => Just(FamilyPolicy::RequireDualStack),
    ];
    let primary = prop_oneof![3 => Just(Family::V4), 1 => Just(Family::V6)];
    (policy, primary).prop_map(|(policy, primary)| Families {
        policy,
        primary,
        dual: policy != FamilyPolicy::SingleStack,
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        4 => Just(anything()),
        2 => address().prop_map(|address| Wanted { addresses: Addresses::default().with(address), ..Wanted::default() }),
        1 => prop::sample::select(vec!["p", "q", "r"]).prop_map(from_pool),
        4 => prop::sample::select(vec!["k", "k", "l"]).prop_map(|key| sharing(key, anything())),
        2 => address().prop_map(|address| {
            sharing("k", Wanted { addresses: Addresses::default().with(address), ..Wanted::default() })
        }),
    ]
}

/// Few ports, so that they collide now and then.
fn exposed() -> impl Strategy<Value = Exposure> {
    prop::sample::select(vec![
        exposure(&[80]),
        exposure(&[443]),
        exposure(&[22]),
        exposure(&[80, 443]),
        local(&[53], "web"),
        local(&[54], "web"),
        local(&[55], "dns"),
    ])
}

fn step() -> impl Strategy<Value = Step> {
    let service = 0..SERVICE_NAMES.len();
    prop_oneof![
        8 => (service.clone(), 0_i64..9, families(), wanted(), exposed()).prop_map(
            |(service, age, families, wanted, exposure)| {
                Step::Create { service, age, families, wanted, exposure }
            }
        ),
        2 => (service.clone(), exposed()).prop_map(|(service, exposure)| Step::Expose { service, exposure }),
        4 => service.clone().prop_map(|service| Step::Delete { service }),
        2 => service.clone().prop_map(|service| Step::Toggle { service }),
        4 => (service.clone(), families(), wanted())
            .prop_map(|(service, families, wanted)| Step::Ask { service, families, wanted }),
        2 => (0..2_usize, 0..SHAPES).prop_map(|(pool, shape)| Step::EditPool { pool, shape }),
        1 => (0..2_usize).prop_map(|pool| Step::DeletePool { pool }),
        1 => (address(), service.clone()).prop_map(|(address, service)| Step::Reserve { address, service }),
        1 => (address(), prop::sample::select(vec!["default", "other"]))
            .prop_map(|(address, namespace)| Step::ReserveForKey { address, namespace }),
        1 => address().prop_map(|address| Step::DeleteLbip { address }),
        1 => (service, prop::collection::vec(address(), 0..2))
            .prop_map(|(service, shown)| Step::StatusByHand { service, shown }),
        24 => (0..3_usize).prop_map(|kind| Step::Deliver { kind }),
        24 => (0..4_usize).prop_map(|job| Step::Work { job }),
        2 => (0..4_usize).prop_map(|job| Step::Refuse { job }),
        1 => any_byte().prop_map(|finished| Step::Restart { finished }),
        1 => Just(Step::Retry),
    ]
}

fn any_byte() -> impl Strategy<Value = u8> {
    0..=u8::MAX
}

fn apply(world: &mut World, step: Step) {
    let name = |service: usize| SERVICE_NAMES[service];
    match step {
        Step::Create { service, age, families, wanted, exposure } => {
            if !world.services.contains_key(&crate::world::service(name(service))) {
                world.create_exposing(name(service), age, families, wanted, exposure);
            }
        }
        Step::Expose { service, exposure } => world.expose(name(service), exposure),
        Step::Delete { service } => world.delete_service(name(service)),
        Step::Toggle { service } => world.toggle_type(name(service)),
        Step::Ask { service, families, wanted } => world.ask(name(service), families, wanted),
        Step::EditPool { pool, shape } => world.apply_pool(pool_shape(pool, shape)),
        Step::DeletePool { pool } => world.delete_pool(["p", "q"][pool]),
        Step::Reserve { address, service } => world.reserve(address, name(service)),
        Step::ReserveForKey { address, namespace } => {
            let key = SharingKey::new("k");
            world.reserve_for(address, Claim::Key { namespace: namespace.into(), key });
        }
        Step::DeleteLbip { address } => world.delete_lbip(address),
        Step::StatusByHand { service, shown } => world.write_status_by_hand(name(service), shown),
        Step::Deliver { kind } => world.deliver(kind),
        Step::Work { job } => world.work(job, Fate::Works),
        Step::Refuse { job } => world.work(job, Fate::Refused),
        Step::Restart { finished } => world.restart(|job| finished >> (job % 8) & 1 == 1),
        Step::Retry => world.handle(herald_ipam::Input::Retry),
    }
    world.check();
}

/// Steps after which the world may say things the simple properties do not cover.
fn is_calm(step: &Step) -> bool {
    !matches!(
        step,
        Step::Reserve { .. }
            | Step::ReserveForKey { .. }
            | Step::DeleteLbip { .. }
            | Step::StatusByHand { .. }
            | Step::Refuse { .. }
    )
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_given_twice_or_lost(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::open();
        world.apply_pool(pool_shape(0, 0));
        world.apply_pool(pool_shape(1, 0));
        for step in steps {
            apply(&mut world, step);
        }
        world.settle();
        world.check();
        model::check_quiet(&world);
    }

    #[test]
    fn in_step_with_the_world_the_lowest_free_address_is_given(
        steps in prop::collection::vec(step().prop_filter("calm", is_calm), 0..60)
    ) {
        let mut world = World::open();
        world.apply_pool(pool_shape(0, 0));
        world.apply_pool(pool_shape(1, 1));
        world.settle();
        for step in steps {
            if let Step::Create { service, families, .. } = &step {
                let free = model::free(&world);
                let name = SERVICE_NAMES[*service];
                let new = !world.services.contains_key(&crate::world::service(name));
                let kept = world.lbips.values().any(|it| {
                    it.claim.as_ref().is_some_and(|claim| claim.admits(&crate::world::service(name), None))
                });
                let unlimited = world.pools.values().all(|spec| spec.limit_per_namespace.is_none());
                if new && !kept && unlimited && families.policy == FamilyPolicy::SingleStack {
                    world.create_service(name, 0, *families, anything());
                    world.settle();
                    let lowest = free.iter().filter(|(pool, _)| world.pools[*pool].auto_assign).find_map(|(_, free)| {
                        free.iter().find(|address| Family::of(**address) == families.primary)
                    });
                    let lowest: Vec<String> = lowest.into_iter().map(ToString::to_string).collect();
                    prop_assert_eq!(world.shown(name), lowest, "{}", world.story());
                }
            }
            apply(&mut world, step);
            world.settle();
            model::check_quiet(&world);
        }
    }
}
