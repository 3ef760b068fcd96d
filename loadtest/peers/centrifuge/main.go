// The stand-in for Centrifugo: its library with the Redis broker, history and recovery on, a server-side subscription to
// the user's channel. Nothing is stored beyond the history. A send is an RPC, answered when Redis has taken the
// publication.
//
//	JWT_SECRET=… peer PORT REDIS_ADDRESS
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/golang-jwt/jwt/v5"
)

const (
	historySize = 256
	historyTTL  = time.Hour
)

type hello struct {
	Group string `json:"group"`
}

type send struct {
	To      string `json:"to"`
	Group   string `json:"group"`
	Content string `json:"content"`
}

type message struct {
	ID        string `json:"id"`
	SenderID  string `json:"senderId"`
	Content   string `json:"content"`
	CreatedAt string `json:"createdAt"`
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: peer PORT REDIS_ADDRESS")
	}
	secret := []byte(os.Getenv("JWT_SECRET"))
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelError})
	must(err)
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: os.Args[2]})
	must(err)
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	must(err)
	node.SetBroker(broker)
	node.OnConnecting(func(_ context.Context, event centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return connecting(secret, event)
	})
	node.OnConnect(func(client *centrifuge.Client) { serve(node, client) })
	must(node.Run())

	http.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		CheckOrigin: func(*http.Request) bool { return true },
	}))
	http.HandleFunc("/", func(response http.ResponseWriter, _ *http.Request) { fmt.Fprintln(response, "ok") })
	must(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}

func connecting(secret []byte, event centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
	claims := jwt.RegisteredClaims{}
	key := func(*jwt.Token) (any, error) { return secret, nil }
	_, err := jwt.ParseWithClaims(event.Token, &claims, key, jwt.WithValidMethods([]string{"HS256"}))
	if err != nil {
		return centrifuge.ConnectReply{}, centrifuge.DisconnectInvalidToken
	}
	var asked hello
	if len(event.Data) > 0 {
		if err := json.Unmarshal(event.Data, &asked); err != nil {
			return centrifuge.ConnectReply{}, centrifuge.DisconnectBadRequest
		}
	}
	options := centrifuge.SubscribeOptions{EnableRecovery: true}
	subscriptions := map[string]centrifuge.SubscribeOptions{"user:" + claims.Subject: options}
	if asked.Group != "" {
		subscriptions["group:"+asked.Group] = options
	}
	return centrifuge.ConnectReply{
		Credentials:   &centrifuge.Credentials{UserID: claims.Subject, ExpireAt: claims.ExpiresAt.Unix()},
		Subscriptions: subscriptions,
	}, nil
}

func serve(node *centrifuge.Node, client *centrifuge.Client) {
	client.OnRPC(func(event centrifuge.RPCEvent, answer centrifuge.RPCCallback) {
		var asked send
		if err := json.Unmarshal(event.Data, &asked); err != nil {
			answer(centrifuge.RPCReply{}, centrifuge.ErrorBadRequest)
			return
		}
		now := time.Now()
		text, err := json.Marshal(message{
			ID: fmt.Sprint(now.UnixNano()), SenderID: client.UserID(), Content: asked.Content,
			CreatedAt: now.UTC().Format("2006-01-02T15:04:05.000Z"),
		})
		must(err)
		channel := "user:" + asked.To
		if asked.Group != "" {
			channel = "group:" + asked.Group
		}
		// Publishing waits for Redis, so it must not hold up what the client sends next.
		go func() {
			_, err := node.Publish(channel, text, centrifuge.WithHistory(historySize, historyTTL))
			answer(centrifuge.RPCReply{Data: []byte("{}")}, err)
		}()
	})
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
