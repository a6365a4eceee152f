-- Web Push: notifications of people who have no tab open.

create table push_key (
    -- The one row has the key with which the server signs its requests, as PKCS#8. A browser accepts
    -- notifications that are signed with it and no others.
    id integer primary key check (id = 1),
    pkcs8 blob not null
);

create table push_subscriptions (
    -- The browser of this session is notified through a push service at that address.
    session_id integer primary key references sessions (id) on delete cascade,
    user_id integer not null references users (id) on delete cascade,
    endpoint text not null unique,
    p256dh blob not null,                    -- the browser's public key, as an uncompressed point
    auth blob not null,
    made_at integer not null
);
create index push_subscriptions_user on push_subscriptions (user_id, made_at);
