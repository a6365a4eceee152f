-- Accounts: passwords, sessions, and people who are connected with several tabs.

alter table users add column password_hash text; -- a PHC string, if they have an account
alter table users add column kept_at integer;    -- when they registered; the user and the display name stay theirs

create table sessions (
    -- Somebody who keeps their name has signed in, known by the token in their cookie. It is good
    -- until it was not seen for a while: a client came or went by it. Its clients end with it.
    id integer primary key autoincrement,    -- never given again
    user_id integer not null references users (id) on delete cascade,
    token_hash blob not null unique,
    made_at integer not null,
    seen_at integer not null
);
create index sessions_user on sessions (user_id);
create index sessions_seen on sessions (seen_at);

alter table clients add column session_id integer references sessions (id) on delete cascade; -- null: a guest
create index clients_session on clients (session_id) where session_id is not null;
-- Of several clients of one person, the one connected longest counts.
create index clients_person on clients (user_id, arrived_at) where left_at is null;

alter table clients_active add column user_id integer not null default 0; -- the user of the client
update clients_active set user_id = (select user_id from clients c where c.id = client_id);
create index clients_active_person on clients_active (room_id, user_id, entered_at, client_id);

-- How many people are in the room, each counted once.
drop trigger clients_active_enter;
drop trigger clients_active_leave;
drop trigger clients_active_change;
create trigger clients_active_enter after insert on clients_active
when not exists (select 1 from clients_active a
    where a.room_id = new.room_id and a.user_id = new.user_id and a.client_id <> new.client_id) begin
    update rooms set people = people + 1 where id = new.room_id;
end;
create trigger clients_active_leave after delete on clients_active
when not exists (select 1 from clients_active a
    where a.room_id = old.room_id and a.user_id = old.user_id) begin
    update rooms set people = people - 1 where id = old.room_id;
end;
create trigger clients_active_change after update of room_id on clients_active when old.room_id <> new.room_id begin
    update rooms set people = people - 1 where id = old.room_id
    and not exists (select 1 from clients_active a
        where a.room_id = old.room_id and a.user_id = old.user_id);
    update rooms set people = people + 1 where id = new.room_id
    and not exists (select 1 from clients_active a
        where a.room_id = new.room_id and a.user_id = new.user_id and a.client_id <> new.client_id);
end;
