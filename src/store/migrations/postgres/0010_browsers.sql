-- Requests without a socket, such as those of pictures, are made by a browser rather than by a tab.

-- The SHA-256 of the browser's token, from its cookie, when the client last connected.
alter table clients add column browser bytea;
create index clients_browser on clients (browser) where browser is not null;
