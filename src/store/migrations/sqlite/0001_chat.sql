-- Times are milliseconds since 1970-01-01 UTC. Comments inside a table are kept in its schema.

create table nodes (
    -- One row per running server process. Its clients stand while its lease does.
    id integer primary key,
    lease_until integer not null
);

create table users (
    -- One row per fake person, seeded or made when nobody was free.
    id integer primary key,
    name text not null unique check (name = lower(name)), -- never changes
    email text not null unique,
    display_name text,                       -- what they choose to be called, if anything
    arrived_at integer,                      -- when somebody was this user first; null: not a person yet
    traced_at integer,                       -- when the first stored row named them; never handed out after
    free integer not null default 1 check (free in (0, 1)), -- may be handed to a newcomer
    gone_at integer,                         -- untouched, not free, nobody there since
    shuffle integer not null                 -- random, so that a random free user is found by index
);
create index users_free on users (shuffle) where free = 1;
create index users_gone on users (gone_at) where gone_at is not null;
create index users_people on users (name) where arrived_at is not null;

create table clients (
    -- This user is (or was, less than a day ago) here, on that node. Found again by its token.
    id integer primary key autoincrement,    -- never given again
    user_id integer not null references users (id) on delete cascade,
    guest integer not null default 1 check (guest in (0, 1)),
    node_id integer not null,
    visit integer not null default 0,        -- grows each time somebody comes back to it
    token_hash blob not null unique,
    arrived_at integer not null,
    left_at integer                          -- null: here now
);
-- A guest is one client; a registered person may have several.
create unique index clients_guest on clients (user_id) where guest = 1;
create index clients_user on clients (user_id);
create index clients_here on clients (arrived_at) where left_at is null;
create index clients_node on clients (node_id) where left_at is null;
create index clients_left on clients (left_at) where left_at is not null;

create table rooms (
    -- A group, or the private room of a pair. version counts its stored changes.
    id integer primary key,                  -- random
    kind text not null check (kind in ('group', 'private')),
    name text,                               -- of a group, as written
    name_key text unique,                    -- of a group, without regard to case
    position integer,                        -- the order of the default groups; null for others
    user_low integer references users (id) on delete cascade,
    user_high integer references users (id) on delete cascade,
    version integer not null default 0,
    history integer not null default 0,      -- the history of the last change
    created_at integer not null,
    unique (user_low, user_high),
    check (case kind
        when 'group' then name is not null and name_key is not null and user_low is null and user_high is null
        else name is null and name_key is null and user_low < user_high
    end)
);
create index rooms_high on rooms (user_high) where user_high is not null;
create index rooms_default on rooms (position) where position is not null;

create table room_histories (
    -- From which version on a room's changes belong to a history. A version of a history is
    -- known here only up to where the next one begins, which tells a restored store's from others.
    room_id integer not null references rooms (id) on delete cascade,
    first_version integer not null,
    history integer not null,
    primary key (room_id, first_version)
) without rowid;
create unique index room_histories_history on room_histories (room_id, history);

create table messages (
    -- One message. Within a room, order by id is order by made.
    id integer primary key,
    room_id integer not null references rooms (id) on delete cascade,
    user_id integer not null references users (id) on delete cascade,
    author_name text not null,               -- the name it was written under
    text text not null,
    key text,                                -- the browser's, unique per author
    made integer not null,                   -- the room's version that made it
    changed integer not null,                -- the room's version of its last change
    created_at integer not null
);
create index messages_room on messages (room_id, id);
create unique index messages_made on messages (room_id, made);
create index messages_changed on messages (room_id, changed);
create unique index messages_key on messages (user_id, key) where key is not null;

create table users_subscribed (
    -- The user belongs to the room, for good: they wrote there, or it is a private room with
    -- messages. The columns from with_id on serve the unread marks of private rooms.
    user_id integer not null references users (id) on delete cascade,
    room_id integer not null references rooms (id) on delete cascade,
    since integer not null,
    with_id integer references users (id) on delete cascade, -- the other person of a private room
    last_message_id integer not null default 0,
    read_message_id integer not null default 0,
    unread integer not null default 0,       -- messages of the other after read_message_id, up to 100
    primary key (user_id, room_id)
) without rowid;
create index users_subscribed_mine on users_subscribed (user_id, (unread > 0), last_message_id)
    where with_id is not null;
create index users_subscribed_groups on users_subscribed (user_id, since) where with_id is null;
create index users_subscribed_room on users_subscribed (room_id);

create table clients_active (
    -- The client is looking at the room right now and gets its pushes.
    client_id integer primary key references clients (id) on delete cascade,
    room_id integer not null references rooms (id) on delete cascade
);
create index clients_active_room on clients_active (room_id);
