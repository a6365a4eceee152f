-- Web Push: notifications of people who have no tab open.

-- The one row has the key with which the servers sign their requests, as PKCS#8. A browser accepts
-- notifications that are signed with it and no others.
create table push_key (
    id bigint primary key check (id = 1),
    pkcs8 bytea not null
);

-- The browser of this session is notified through a push service at that address.
create table push_subscriptions (
    session_id bigint primary key references sessions (id) on delete cascade,
    user_id bigint not null references users (id) on delete cascade,
    endpoint text collate "C" not null unique,
    p256dh bytea not null,                   -- the browser's public key, as an uncompressed point
    auth bytea not null,
    made_at bigint not null
);
create index push_subscriptions_user on push_subscriptions (user_id, made_at);
